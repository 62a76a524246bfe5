//! JSON that somebody else wrote, read strictly.
//!
//! Serde's own reading is lenient in two ways that would make Kiln silently do something else than was
//! meant: a struct can be written as an array of its fields' values, and of two equal keys of a map the
//! last one wins. Other readers of the same text may see another value then. Both are refused here, for
//! every type and at every depth.

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;
use serde_json::error::Category;

/// Why a text is not the message that it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// There is nothing but white space.
    #[error("it is empty; JSON is expected")]
    Empty,
    /// It is an array where a message is expected.
    #[error("it is an array; a JSON object is expected")]
    Array,
    /// It is not JSON, or there is something behind it.
    #[error("it is not JSON: {0}")]
    Syntax(serde_json::Error),
    /// It is JSON, and not what is expected.
    #[error("{}{reason}", field.as_ref().map(|field| format!("`{field}` is not valid: ")).unwrap_or_default())]
    Value {
        /// The path of the field, such as `limits.vcpu`; absent when it is the whole.
        field: Option<String>,
        /// What is wrong with it, and where, by line and column.
        reason: String,
    },
}

/// Reads a message. Its type's own serialized form is what says which parts are objects; a field that
/// holds an object must therefore not be left out by `skip_serializing_if` when it was given.
pub fn from_slice<T: DeserializeOwned + Serialize>(text: &[u8]) -> Result<T, JsonError> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(JsonError::Empty);
    }
    if text.trim_ascii_start().first() == Some(&b'[') {
        return Err(JsonError::Array);
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let value: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let cause = error.into_inner();
        // serde_json calls a `null` in the place of a choice a fault of syntax, too.
        let is_json = || serde_json::from_slice::<IgnoredAny>(text).is_ok();
        if cause.classify() != Category::Data && !is_json() {
            return JsonError::Syntax(cause);
        }
        let field = Some(shortened(field)).filter(|field| field != ".");
        let reason = if cause.classify() == Category::Data {
            cause.to_string()
        } else {
            format!("it must be a choice, an object with exactly one key: {cause}")
        };
        JsonError::Value { field, reason: shortened(reason) }
    })?;
    json.end().map_err(JsonError::Syntax)?;
    let shape = serde_json::to_value(&value).unwrap_or_default();
    check(text, Some(&shape))?;
    Ok(value)
}

/// Refuses a text in which an object has a key twice. Where nothing else is known of it.
pub fn check_keys(text: &[u8]) -> Result<(), JsonError> {
    check(text, None)
}

fn check(text: &[u8], shape: Option<&Value>) -> Result<(), JsonError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let walk = Walk { shape, path: Path::Root };
    // Whatever fails here is a sentence of this module's own, with line and column behind it.
    walk.deserialize(&mut json)
        .map_err(|error| JsonError::Value { field: None, reason: shortened(error.to_string()) })
}

/// A message without the middle of a value that is too long to be shown; its end says what is expected,
/// and where.
fn shortened(text: String) -> String {
    const KEPT: usize = 250;
    if text.chars().nth(2 * KEPT).is_none() {
        return text;
    }
    let start: String = text.chars().take(KEPT).collect();
    let mut end: Vec<char> = text.chars().rev().take(KEPT).collect();
    end.reverse();
    format!("{start}…{}", String::from_iter(end))
}

/// Where in the document something is.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(&shown(key)),
            Self::Key(parent, key) => write!(f, "{parent}.{}", shown(key)),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A key as a message shows it: not endless, and one line.
fn shown(key: &str) -> String {
    let mut text: String = key.chars().take(80).flat_map(char::escape_debug).collect();
    if key.chars().nth(80).is_some() {
        text.push('…');
    }
    text
}

/// Goes through a document beside the shape that its type has.
struct Walk<'s, 'p> {
    shape: Option<&'s Value>,
    path: Path<'p>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if let Some(Value::Object(_)) = self.shape {
            let path = self.path;
            return Err(A::Error::custom(format!(
                "`{path}` is an array; a JSON object is expected"
            )));
        }
        let mut index = 0;
        loop {
            let shape = self.shape.and_then(|shape| shape.get(index));
            let walk = Walk { shape, path: Path::Index(&self.path, index) };
            if items.next_element_seed(walk)?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            let path = Path::Key(&self.path, &key);
            if seen.contains(&key) {
                return Err(A::Error::custom(format!("`{path}` is there twice")));
            }
            let shape = self.shape.and_then(|shape| shape.get(&key));
            fields.next_value_seed(Walk { shape, path })?;
            seen.insert(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageDefinition;
    use crate::api::{BuildRequest, CreateSandbox, ExecClientMessage};

    fn error<T: DeserializeOwned + Serialize + fmt::Debug>(text: &str) -> String {
        from_slice::<T>(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn arrays_are_no_objects() {
        for (text, named) in [
            (r#"{"image": "x", "limits": [1, 64, 64]}"#, "`limits` is an array"),
            (r#"{"image": "x", "limits": []}"#, "`limits` is an array"),
            (r#" ["x"]"#, "it is an array"),
        ] {
            let error = error::<CreateSandbox>(text);
            assert!(error.contains(named), "{text}: {error}");
        }
        for (text, named) in [
            (r#"{"type": "resize", "size": [24, 80]}"#, "`size` is an array"),
            (r#"{"type": "start", "request": [["ls"]]}"#, "`request` is an array"),
        ] {
            let error = error::<ExecClientMessage>(text);
            assert!(error.contains(named), "{text}: {error}");
        }
        for (text, named) in [
            (r#"{"base": {"image": "x"}, "steps": [["user", "ada"]]}"#, "`steps[0]` is an array"),
            (
                r#"{"base": {"image": "x"}, "steps": [["file", "/a", "", 420]]}"#,
                "`steps[0]` is an array",
            ),
        ] {
            let error = error::<ImageDefinition>(text);
            assert!(error.contains(named), "{text}: {error}");
        }
        let text = r#"{"source": {"template": ["x", "debian-12"]}}"#;
        let error = error::<BuildRequest>(text);
        assert!(error.contains("`source.template` is an array"), "{error}");
    }

    #[test]
    fn keys_are_there_once() {
        for (text, named) in [
            (r#"{"image": "x", "image": "y"}"#, "duplicate field `image`"),
            (r#"{"image": "x", "env": {"A": "1", "A": "2"}}"#, "`env.A` is there twice at line 1"),
            (r#"{"image": "x", "env": {"A": "1", "\u0041": "1"}}"#, "`env.A` is there twice"),
        ] {
            let error = error::<CreateSandbox>(text);
            assert!(error.contains(named), "{text}: {error}");
        }
        let text =
            r#"{"base": {"image": "x"}, "steps": [{"type": "env", "vars": {"A": "1", "A": "2"}}]}"#;
        let error = error::<ImageDefinition>(text);
        assert!(error.contains("`steps[0].vars.A` is there twice"), "{error}");
        assert!(check_keys(br#"{"a": [{"b": 1, "b": 2}]}"#).is_err());
        check_keys(br#"{"a": [{"b": 1}, {"b": null}], "c": {"b": -1.5}}"#).unwrap();
    }

    #[test]
    fn messages_are_not_endless() {
        let long = "x".repeat(1 << 20);
        for text in [
            format!("{{\"{long}\": 1}}"),
            format!("{{\"image\": [\"{long}\"]}}"),
            format!("{{\"image\": \"x\", \"env\": {{\"{long}\": 1}}}}"),
            format!("{{\"image\": \"x\", \"env\": {{\"{long}\": \"\", \"{long}\": \"\"}}}}"),
        ] {
            let error = error::<CreateSandbox>(&text);
            assert!(error.len() < 1200 && error.contains("line 1 column"), "{error}");
        }
    }

    #[test]
    fn what_is_right_is_read() {
        let text =
            r#"{"image": "x", "limits": {"vcpu": 1}, "env": {"A": "", "a": ""}, "name": null}"#;
        let read: CreateSandbox = from_slice(text.as_bytes()).unwrap();
        assert_eq!((read.limits.vcpu, read.env.len(), read.name), (Some(1), 2, None));
    }

    #[test]
    fn depth_has_an_end() {
        let text = "{\"image\":".repeat(100_000);
        assert!(matches!(
            from_slice::<CreateSandbox>(text.as_bytes()),
            Err(JsonError::Syntax(_) | JsonError::Value { .. })
        ));
        let text = format!("{{\"image\": {}", "[".repeat(100_000));
        from_slice::<CreateSandbox>(text.as_bytes()).unwrap_err();
    }
}
