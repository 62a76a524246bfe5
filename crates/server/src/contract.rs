//! What each route takes, held against each request before its handler sees it: a query parameter or a
//! body that the route has no use for is refused, since ignoring it would be silent.
//!
//! The routes' own description is where this is known from, so a new route is held to it by itself.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use kiln_types::ErrorCode;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

use crate::extract::{percent_decoded, shorten};
use crate::problem::ApiError;

/// What one operation takes.
#[derive(Debug, Default)]
struct Takes {
    query: Vec<String>,
    body: bool,
}

/// What all operations take, by method and path.
#[derive(Clone, Debug)]
pub(crate) struct Contract(Arc<HashMap<(Method, String), Takes>>);

impl Contract {
    /// The contract that a description is.
    pub(crate) fn of(document: &OpenApi) -> Self {
        let mut all = HashMap::new();
        for (path, item) in &document.paths.paths {
            for (method, operation) in [
                (Method::GET, &item.get),
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::DELETE, &item.delete),
            ] {
                if let Some(operation) = operation {
                    all.insert((method, path.clone()), takes(operation));
                }
            }
        }
        Self(Arc::new(all))
    }

    fn check(&self, path: &str, request: &Request) -> Result<(), ApiError> {
        let method = match *request.method() {
            Method::HEAD => Method::GET,
            ref method => method.clone(),
        };
        // Routes that are not described have no parameters.
        let nothing = Takes::default();
        let takes = self.0.get(&(method, path.to_owned())).unwrap_or(&nothing);
        check_query(request.uri().query().unwrap_or_default(), takes)?;
        if !takes.body && has_body(request.headers()) {
            return Err(ApiError::new(
                ErrorCode::InvalidRequest,
                "the request has a body, and this route takes none",
            )
            .hint("what the route takes is described at `/v1/openapi.json`"));
        }
        Ok(())
    }
}

/// Lets a request pass that has nothing which its route does not take.
pub(crate) async fn check(
    State(contract): State<Contract>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    contract.check(path.as_str(), &request)?;
    Ok(next.run(request).await)
}

fn takes(operation: &Operation) -> Takes {
    let query = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
            Some(parameter.name.clone())
        }
        _ => None,
    });
    Takes { query: query.collect(), body: operation.request_body.is_some() }
}

fn check_query(query: &str, takes: &Takes) -> Result<(), ApiError> {
    let invalid = |detail: String| Err(ApiError::new(ErrorCode::InvalidRequest, detail));
    let mut seen: Vec<Cow<'_, [u8]>> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = percent_decoded(pair.split('=').next().unwrap_or_default());
        let shown = shorten(&String::from_utf8_lossy(&name));
        if !takes.query.iter().any(|known| known.as_bytes() == &*name) {
            let error = invalid(format!("`{shown}` is no query parameter of this route"));
            return error.map_err(|error| error.hint(hint(&takes.query)));
        }
        if seen.contains(&name) {
            return invalid(format!("the query parameter `{shown}` is there twice"));
        }
        seen.push(name);
    }
    Ok(())
}

fn hint(known: &[String]) -> String {
    match known {
        [] => "the route has no query parameters".to_owned(),
        known => format!("the route's query parameters are `{}`", known.join("`, `")),
    }
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_have_only_what_is_taken_and_once() {
        let takes = Takes { query: vec!["path".into(), "mode".into()], body: false };
        for (query, fault) in [
            ("", None),
            ("&", None),
            ("path=a&mode=6", None),
            ("%70ath=a", None),
            ("path=%FF", None),
            ("paths=a", Some("`paths` is no query parameter")),
            ("=a", Some("`` is no query parameter")),
            ("%FF=a", Some("is no query parameter")),
            ("path=a&p%61th=b", Some("`path` is there twice")),
        ] {
            let detail = check_query(query, &takes).err().map(|error| error.problem.detail);
            match (detail, fault) {
                (None, None) => {}
                (Some(detail), Some(fault)) => assert!(detail.contains(fault), "{query}: {detail}"),
                other => panic!("{query}: {other:?}"),
            }
        }
    }
}
