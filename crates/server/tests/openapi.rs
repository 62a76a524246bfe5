//! The committed description of the API is the one that the routes give.

use std::collections::BTreeSet;
use std::path::PathBuf;

fn committed() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json"))
}

#[test]
fn committed_document_is_current() {
    let current = kiln_server::openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("KILN_BLESS").is_some() {
        std::fs::write(committed(), &current).unwrap();
    }
    let found = std::fs::read_to_string(committed()).unwrap_or_default();
    assert!(
        found == current,
        "docs/openapi.json is not what the routes say of themselves; look at the change and accept it \
         with `KILN_BLESS=1 cargo nextest run -p kiln-server committed_document_is_current`"
    );
}

#[test]
fn every_operation_is_described() {
    let document = serde_json::to_value(kiln_server::openapi()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let at = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{at} has no summary");
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(ids.insert(id.clone()), "{at}: `{id}` is the id of another operation as well");
            assert_eq!(operation["responses"]["default"]["$ref"], "#/components/responses/Problem");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            {
                let described = parameters
                    .iter()
                    .any(|parameter| parameter["name"] == name && parameter["in"] == "path");
                assert!(described, "{at}: `{name}` is not described");
            }
        }
    }
    assert!(ids.len() >= 27, "only {} operations", ids.len());
}

#[test]
fn every_reference_leads_somewhere() {
    let document = serde_json::to_value(kiln_server::openapi()).unwrap();
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    assert!(references.len() > 10);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn collect(value: &serde_json::Value, references: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            if let Some(reference) = map.get("$ref").and_then(serde_json::Value::as_str) {
                references.insert(reference.to_owned());
            }
            map.values().for_each(|value| collect(value, references));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}
