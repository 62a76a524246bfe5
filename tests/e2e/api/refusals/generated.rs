//! Bodies that are wrong in one place each, made from the OpenAPI document: every object, map, list and
//! value of every request, at every depth. A route that is new in the document is in here by itself.

use serde_json::{Value, json};

use super::{path, request};
use crate::api::caller::Api;
use crate::api::document::{Document, Operation};

/// One step into a document.
#[derive(Clone, Debug, PartialEq)]
enum At {
    Key(String),
    Index(usize),
}

/// A place in a body, with what the document says of it.
struct Place<'d> {
    at: Vec<At>,
    schema: &'d Value,
    value: Value,
}

impl Place<'_> {
    /// What an error has to name: the nearest key above.
    fn named(&self) -> &str {
        let mut above = self.at.iter().rev();
        let key = above.find_map(|at| match at {
            At::Key(key) => Some(key.as_str()),
            At::Index(_) => None,
        });
        key.unwrap_or_default()
    }

    fn is_struct(&self) -> bool {
        self.schema["properties"].is_object()
    }
}

/// A value with all that the schema has, of every kind that a choice has.
fn samples(document: &Document, schema: &Value) -> Vec<Value> {
    let schema = document.resolve(schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let choices = choices.iter().filter(|choice| choice["type"] != "null");
        return choices.flat_map(|choice| samples(document, choice)).collect();
    }
    if let Some(parts) = schema["allOf"].as_array() {
        // A part with the shared fields and a part of its own.
        let mut all = vec![json!({})];
        for part in parts {
            all = all
                .iter()
                .flat_map(|sample| {
                    samples(document, part).into_iter().map(|more| {
                        let mut sample = sample.clone();
                        let (Value::Object(into), Value::Object(mut more)) = (&mut sample, more)
                        else {
                            panic!("{schema} is of parts that are no objects")
                        };
                        into.append(&mut more);
                        sample
                    })
                })
                .collect();
        }
        return all;
    }
    if let Some(values) = schema["enum"].as_array() {
        return vec![values[0].clone()];
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds[0].as_str(),
        kind => kind.as_str(),
    };
    match kind.unwrap_or("object") {
        "string" => vec![json!("x")],
        "integer" | "number" => vec![schema["minimum"].as_u64().max(Some(1)).into()],
        "boolean" => vec![json!(true)],
        "array" => vec![Value::Array(samples(document, &schema["items"]))],
        _ if schema["properties"].is_object() => {
            let mut all = vec![json!({})];
            for (name, property) in schema["properties"].as_object().unwrap() {
                let kinds = samples(document, property);
                let mut more = Vec::new();
                // The first sample has the first of each choice, one further sample each other one.
                for (number, kind) in kinds.iter().enumerate() {
                    for sample in if number == 0 { all.as_slice() } else { &all[..1] } {
                        let mut sample = sample.clone();
                        sample[name] = kind.clone();
                        more.push(sample);
                    }
                }
                all = more;
            }
            all
        }
        _ => vec![json!({ "K": "v" })],
    }
}

/// All places of a sample.
fn places<'d>(
    document: &'d Document,
    schema: &'d Value,
    value: &Value,
    at: &[At],
    all: &mut Vec<Place<'d>>,
) {
    let mut schema = document.resolve(schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits =
            choices.iter().find(|choice| document.conforms(choice, value, "").is_ok()).unwrap();
        schema = document.resolve(fits);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        // The part that has most to say of it; the others are fields beside it.
        for part in parts {
            let part = document.resolve(part);
            for (name, property) in part["properties"].as_object().into_iter().flatten() {
                let at = [at, &[At::Key(name.clone())]].concat();
                places(document, property, &value[name], &at, all);
            }
        }
        return;
    }
    all.push(Place { at: at.to_vec(), schema, value: value.clone() });
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let property = match schema["properties"].get(name) {
                    Some(property) => property,
                    None => &schema["additionalProperties"],
                };
                let at = [at, &[At::Key(name.clone())]].concat();
                places(document, property, value, &at, all);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let at = [at, &[At::Index(index)]].concat();
                places(document, &schema["items"], item, &at, all);
            }
        }
        _ => {}
    }
}

/// The text of `value` with `text` in the place `at`.
fn render(value: &Value, at: &[At], text: &str) -> String {
    let Some((first, rest)) = at.split_first() else { return text.to_owned() };
    let inner = |here: bool, value: &Value| {
        if here { render(value, rest, text) } else { value.to_string() }
    };
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                let here = *first == At::Key(name.clone());
                format!("{}:{}", json!(name), inner(here, value))
            });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            let items = items
                .iter()
                .enumerate()
                .map(|(index, value)| inner(*first == At::Index(index), value));
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        }
        other => panic!("{other} has no parts"),
    }
}

/// Texts that must not stand in this place, and what the error has to name.
fn wrong(document: &Document, place: &Place<'_>) -> Vec<(String, String)> {
    let named = place.named().to_owned();
    let mut texts = Vec::new();
    for other in [
        json!(7),
        json!(-1),
        json!(1.5),
        json!(1e30),
        json!("text"),
        json!(true),
        json!(null),
        json!([]),
        json!([[]]),
        json!({}),
        json!({ "colour": 1 }),
    ] {
        if document.conforms(place.schema, &other, "").is_err() && !place.at.is_empty() {
            // An optional one may be `null` where the schema of the value itself says nothing of it.
            if !other.is_null() {
                texts.push((other.to_string(), named.clone()));
            }
        }
    }
    if let (true, Value::Object(fields)) = (place.is_struct(), &place.value) {
        let values: Vec<&Value> = fields.values().collect();
        texts.push((json!(values).to_string(), named.clone()));
        let mut more = place.value.clone();
        more["colour"] = json!("red");
        texts.push((more.to_string(), "colour".to_owned()));
    }
    if let Value::Object(fields) = &place.value {
        let (key, value) = fields.iter().next().unwrap();
        let text = place.value.to_string();
        let twice = format!("{{{}:{value},{}", json!(key), &text[1..]);
        texts.push((twice, key.clone()));
    }
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    texts.push((deep, String::new()));
    texts.push((r#""\ud800""#.to_owned(), String::new()));
    texts.push(("1e999".to_owned(), String::new()));
    texts.push(("NaN".to_owned(), String::new()));
    texts
}

/// Texts that have the right form, and are more than anybody needs.
fn huge(place: &Place<'_>) -> Vec<String> {
    match &place.value {
        Value::String(_) => vec![json!("x".repeat(1 << 20)).to_string(), json!("a\0b").to_string()],
        Value::Array(items) => {
            let item = items.first().cloned().unwrap_or(json!("x")).to_string();
            vec![format!("[{}]", vec![item; 100_000].join(","))]
        }
        Value::Object(_) if !place.is_struct() => {
            let pairs: Vec<String> = (0..100_000).map(|n| format!("\"K{n}\":\"v\"")).collect();
            vec![format!("{{{}}}", pairs.join(","))]
        }
        // To keep nothing for its age alone is a wish like any other.
        Value::Number(_) if place.named() == "keep_hours" => vec![u64::MAX.to_string()],
        Value::Number(_) => vec![u64::MAX.to_string(), "0".to_owned()],
        _ => Vec::new(),
    }
}

/// The sample, with something in it that is always refused, so that nothing of it is ever carried out.
fn harmless(operation: &Operation<'_>, mut sample: Value) -> Value {
    if operation.id() == "create_build" {
        sample["name"] = json!("No Name");
    }
    if operation.id() == "exec" {
        sample["pty"] = json!({ "rows": 1, "cols": 1 });
    }
    sample
}

#[tokio::test]
async fn every_place_of_every_body_is_checked() {
    let api = Api::with_box();
    let before = api.state().await;
    let mut checked = 0;
    for operation in api.document.operations() {
        let Some(schema) = api.document.body(&operation) else { continue };
        let path = path(&operation, "nothing");
        for sample in samples(&api.document, schema) {
            api.document.conforms(schema, &sample, "sample").unwrap();
            let mut all = Vec::new();
            places(&api.document, schema, &sample, &[], &mut all);
            for place in &all {
                for (text, named) in wrong(&api.document, place) {
                    let body = render(&sample, &place.at, &text);
                    let answer = api.post(&path, body.clone()).await;
                    let shown = &body[..body.len().min(300)];
                    assert_eq!(answer.status, 400, "{shown}: {answer}");
                    answer.refuses(400, "invalid_request", "");
                    // Of a choice between kinds, the parser names the choice.
                    let said = answer.json()["detail"].to_string();
                    let above = place.at.iter().any(|at| match at {
                        At::Key(key) => {
                            let told = named != "colour"
                                || said.contains("one key")
                                || said.contains("single key");
                            told && said.contains(key.as_str())
                        }
                        At::Index(_) => false,
                    });
                    assert!(above || said.contains(&named), "no {named:?}: {shown}: {answer}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 300, "{checked}");
    assert_eq!(api.state().await, before, "a refusal left something");
}

#[tokio::test]
async fn heavy_huge_values_are_refused_in_short_answers() {
    let api = Api::with_box();
    let before = api.state().await;
    for operation in api.document.operations() {
        let Some(schema) = api.document.body(&operation) else { continue };
        let path = path(&operation, "nothing");
        for sample in samples(&api.document, schema) {
            let sample = harmless(&operation, sample);
            let mut all = Vec::new();
            places(&api.document, schema, &sample, &[], &mut all);
            for place in &all {
                for text in huge(place) {
                    let body = render(&sample, &place.at, &text);
                    let answer = api.post(&path, body).await;
                    assert!((400..500).contains(&answer.status), "{}: {answer}", place.named());
                    assert!(answer.body.len() < 4096, "{} bytes: {answer}", answer.body.len());
                }
            }
        }
    }
    assert_eq!(api.state().await, before, "a refusal left something");
    assert_eq!(api.shell("echo fine").await, "fine\n");
}

#[tokio::test]
async fn what_a_route_does_not_take_is_refused() {
    let api = Api::with_box();
    let before = api.state().await;
    for operation in api.document.operations() {
        let path = path(&operation, "b");
        let method = operation.method.to_uppercase();
        let separator = if path.contains('?') { '&' } else { '?' };
        for (query, named) in [("colour=red", "colour"), ("%FF=1", "query"), ("=1", "``")] {
            let asked = format!("{path}{separator}{query}");
            let answer = api.send(request(&api, &operation, &asked)).await;
            answer.refuses(400, "invalid_request", named);
        }
        if operation.description["requestBody"].is_null() && operation.id() != "exec_stream" {
            for body in ["{}", "x"] {
                let answer = api.send(api.request(&method, &path).body(body)).await;
                answer.refuses(400, "invalid_request", "takes none");
            }
        }
    }
    assert_eq!(api.state().await, before, "a refusal changed something");
}

/// What an answer is made of does not depend on what the client says it wants; only `exec` has two
/// forms.
#[tokio::test]
async fn a_wish_for_another_media_type_changes_nothing() {
    let api = Api::with_box();
    for operation in api.document.operations() {
        for accept in ["text/html", "application/xml;q=0.1", "*/*", "nonsense", "\u{fc}"] {
            let path = path(&operation, "nothing");
            let request = request(&api, &operation, &path).header("accept", accept);
            let answer = api.send(request).await;
            // Where `pull` is sent to, nobody is.
            assert!(answer.status < 500 || answer.status == 502, "{answer}");
        }
    }
}

#[test]
fn the_samples_have_every_choice() {
    let document = Document::committed();
    let build = document.operation("POST", "/v1/builds").unwrap();
    let schema = document.body(&build).unwrap();
    let text = json!(samples(&document, schema)).to_string();
    for word in
        ["template", "definition", "rootfs", "catalog", "shell", "argv", "\"npm\"", "\"cmd\""]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    let place = [At::Key("a".into()), At::Index(1)];
    assert_eq!(render(&json!({ "a": [1, 2], "b": 3 }), &place, "[]"), r#"{"a":[1,[]],"b":3}"#);
}
