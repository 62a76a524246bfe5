//! `WWW-Authenticate` (RFC 9110, 11.6.1).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// A scheme that is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// RFC 7617.
    Basic,
    /// RFC 6750, with the parameters of the distribution project.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The challenges of a response, in their order; what is malformed or of another scheme is left out.
pub(crate) fn parse(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(parse_value).collect()
}

fn parse_value(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=', '"']).unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        let word = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start_matches([' ', '\t']);
        let Some(value) = rest.strip_prefix('=') else {
            found.push((word, Vec::new()));
            continue;
        };
        let (value, after) = parameter(value.trim_start_matches([' ', '\t']));
        rest = after;
        if let Some((_, parameters)) = found.last_mut() {
            parameters.push((word, value));
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| understood(&scheme, &parameters)).collect()
}

/// A token or a quoted string, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

fn understood(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let get =
        |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: get("realm")?,
            service: get("service"),
            scope: get("scope").filter(|scope| !scope.is_empty()),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        };
        for (given, expected) in [
            ("Basic realm=\"test\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://a.test/t\",service=\"s\",scope=\"repository:a/b:pull,push\"",
                vec![bearer("https://a.test/t", Some("s"), Some("repository:a/b:pull,push"))],
            ),
            (
                "Negotiate, Bearer realm = \"x\\\"y\" , error=\"invalid_token\", Basic realm=z",
                vec![bearer("x\"y", None, None), Challenge::Basic],
            ),
            ("Bearer service=\"s\"", vec![]),
            ("Bearer realm=\"open", vec![bearer("open", None, None)]),
            ("", vec![]),
            ("=,\"", vec![]),
        ] {
            assert_eq!(parse_value(given), expected, "{given}");
        }
    }
}
