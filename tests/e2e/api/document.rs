//! The committed OpenAPI document, and whether an answer is what it promises.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// The document, parsed.
pub(crate) struct Document(Value);

/// One operation of the document.
#[derive(Clone, Copy)]
pub(crate) struct Operation<'a> {
    /// Upper case.
    pub(crate) method: &'a str,
    /// With `{…}` for parameters.
    pub(crate) path: &'a str,
    pub(crate) description: &'a Value,
}

impl Operation<'_> {
    /// `GET /v1/…`.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.method.to_uppercase(), self.path)
    }

    pub(crate) fn id(&self) -> &str {
        self.description["operationId"].as_str().unwrap()
    }

    /// Names of the parameters in `place` (`path`, `query`, `header`).
    pub(crate) fn parameters(&self, place: &str) -> Vec<&str> {
        let all = self.description["parameters"].as_array().into_iter().flatten();
        all.filter(|parameter| parameter["in"] == place)
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect()
    }

    /// Whether it answers without a key.
    pub(crate) fn is_open(&self) -> bool {
        self.description["security"][0].as_object().is_some_and(serde_json::Map::is_empty)
    }
}

impl Document {
    pub(crate) fn committed() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        Self(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    }

    pub(crate) fn value(&self) -> &Value {
        &self.0
    }

    /// All operations.
    pub(crate) fn operations(&self) -> Vec<Operation<'_>> {
        let paths = self.0["paths"].as_object().unwrap();
        paths
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().unwrap().iter().map(move |(method, description)| Operation {
                    method,
                    path,
                    description,
                })
            })
            .collect()
    }

    /// The titles of all operations.
    pub(crate) fn titles(&self) -> BTreeSet<String> {
        self.operations().iter().map(Operation::title).collect()
    }

    /// The operation that a request is for. A path without parameters goes before one with.
    pub(crate) fn operation(&self, method: &str, path: &str) -> Option<Operation<'_>> {
        let matches = |template: &str| {
            let (template, path) = (template.split('/'), path.split('/'));
            template.clone().count() == path.clone().count()
                && template.zip(path).all(|(expected, given)| {
                    expected == given || expected.starts_with('{') && !given.is_empty()
                })
        };
        self.operations()
            .into_iter()
            .filter(|operation| operation.method.eq_ignore_ascii_case(method))
            .filter(|operation| matches(operation.path))
            .min_by_key(|operation| operation.path.matches('{').count())
    }

    /// The schema of an operation's JSON body.
    pub(crate) fn body<'a>(&'a self, operation: &Operation<'a>) -> Option<&'a Value> {
        let schema = &operation.description["requestBody"]["content"]["application/json"]["schema"];
        (!schema.is_null()).then(|| self.resolve(schema))
    }

    /// Whether this answer is one that the operation documents.
    pub(crate) fn check(
        &self,
        operation: &Operation<'_>,
        status: u16,
        media_type: &str,
        body: &[u8],
    ) -> Result<(), String> {
        let responses = &operation.description["responses"];
        let documented = responses.get(status.to_string());
        let response = match documented {
            Some(response) => response,
            None if status < 400 => return Err(format!("status {status} is not documented")),
            None => &responses["default"],
        };
        let response = self.resolve(response);
        let Some(content) = response.get("content").and_then(Value::as_object) else {
            return match body {
                [] => Ok(()),
                _ => Err(format!("no body is documented for {status}, {} bytes came", body.len())),
            };
        };
        if status == 101 {
            return Ok(());
        }
        let schema = content.get(media_type).map(|media| &media["schema"]);
        let schema = schema
            .ok_or_else(|| format!("media type {media_type:?} is not documented for {status}"))?;
        let parse = |text: &[u8]| {
            serde_json::from_slice::<Value>(text).map_err(|error| format!("not JSON: {error}"))
        };
        match media_type {
            "application/octet-stream" => Ok(()),
            "text/event-stream" => {
                let text = String::from_utf8(body.to_vec()).map_err(|error| error.to_string())?;
                let mut data = text.lines().filter_map(|line| line.strip_prefix("data:"));
                data.try_for_each(|data| self.conforms(schema, &parse(data.as_bytes())?, "event"))
            }
            _ => {
                let value = parse(body)?;
                if documented.is_none() && value["status"] != status {
                    return Err(format!("`status` in the problem is not {status}: {value}"));
                }
                self.conforms(schema, &value, "body")
            }
        }
    }

    /// Whether `value` conforms to `schema`; properties that the schema does not know are refused.
    pub(crate) fn conforms(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        self.conforms_as(schema, value, at, true)
    }

    fn conforms_as(
        &self,
        schema: &Value,
        value: &Value,
        at: &str,
        closed: bool,
    ) -> Result<(), String> {
        let schema = self.resolve(schema);
        if let Some(choices) = schema["oneOf"].as_array() {
            let results: Vec<_> =
                choices.iter().map(|choice| self.conforms_as(choice, value, at, closed)).collect();
            return match results.iter().filter(|result| result.is_ok()).count() {
                1 => Ok(()),
                count => Err(format!("{at}: {count} of the choices fit {value}: {results:?}")),
            };
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.conforms_as(part, value, at, false)?;
        }
        if let Some(values) = schema["enum"].as_array()
            && !values.contains(value)
        {
            return Err(format!("{at}: {value} is none of {values:?}"));
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(name) => vec![name],
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !types.is_empty() && !types.contains(&kind(value)) {
            return Err(format!("{at}: {value} is not {types:?}"));
        }
        if let (Some(minimum), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
            && number < minimum
        {
            return Err(format!("{at}: {number} is below {minimum}"));
        }
        if let Value::Array(items) = value {
            for (position, item) in items.iter().enumerate() {
                self.conforms_as(&schema["items"], item, &format!("{at}[{position}]"), true)?;
            }
        }
        if let Value::Object(object) = value {
            self.object_conforms(schema, object, at, closed)?;
        }
        Ok(())
    }

    fn object_conforms(
        &self,
        schema: &Value,
        object: &serde_json::Map<String, Value>,
        at: &str,
        closed: bool,
    ) -> Result<(), String> {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(name.as_str().unwrap()) {
                return Err(format!("{at}: {name} is missing"));
            }
        }
        for (name, value) in object {
            let at = format!("{at}.{name}");
            if let Some(property) = schema["properties"].get(name) {
                self.conforms_as(property, value, &at, true)?;
            } else if schema["additionalProperties"].is_object() {
                self.conforms_as(&schema["additionalProperties"], value, &at, true)?;
            } else if closed && schema["properties"].is_object() {
                return Err(format!("{at} is not documented"));
            }
        }
        Ok(())
    }

    /// What a `$ref` points to.
    pub(crate) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(pointer) => {
                let target = self.0.pointer(pointer.trim_start_matches('#'));
                self.resolve(target.unwrap_or_else(|| panic!("{pointer} leads nowhere")))
            }
            None => value,
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[test]
fn the_checker_sees_what_is_wrong() {
    let document = Document::committed();
    let health = document.operation("GET", "/v1/health").unwrap();
    let good = r#"{"status": "ok", "version": "1", "sandboxes_running": 0}"#;
    let missing = r#"{"status": "ok", "sandboxes_running": 0}"#;
    let unknown = r#"{"status": "ok", "version": "1", "sandboxes_running": 0, "more": 1}"#;
    let wrong = r#"{"status": "ok", "version": "1", "sandboxes_running": -1}"#;
    let problem = r#"{"status": 404, "code": "no_such_code", "detail": "x"}"#;
    let json = "application/json";
    for (status, media_type, body, expected) in [
        (200, json, good, None),
        (200, json, missing, Some("\"version\" is missing")),
        (200, json, unknown, Some("body.more is not documented")),
        (200, json, wrong, Some("-1 is below 0")),
        (200, "text/html", good, Some("text/html")),
        (204, json, "", Some("status 204 is not documented")),
        (404, json, good, Some("media type")),
        (404, "application/problem+json", problem, Some("no_such_code")),
        (400, "application/problem+json", problem, Some("`status`")),
    ] {
        let result = document.check(&health, status, media_type, body.as_bytes());
        match expected {
            None => assert_eq!(result, Ok(())),
            Some(text) => {
                let error = result.unwrap_err();
                assert!(error.contains(text), "{error}");
            }
        }
    }
}
