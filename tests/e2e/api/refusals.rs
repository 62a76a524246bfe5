//! What is refused, and how: a problem with a stable code that names the field or the value. The tables
//! come from the OpenAPI document where they can, so a new route is in them by itself.

mod generated;
mod states;
mod values;

use reqwest::RequestBuilder;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};

use super::caller::{Answer, Api};
use super::document::Operation;

/// A body that the operation takes, as far as its form goes.
fn body(operation: &Operation<'_>) -> Option<Value> {
    Some(match operation.id() {
        "create_build" => {
            json!({ "source": { "template": { "name": "x", "base_image": "debian-12" } } })
        }
        "pull_image" => json!({ "reference": "127.0.0.1:1/x" }),
        "create_sandbox" => json!({ "image": "nothing" }),
        "exec" => json!({ "argv": ["true"] }),
        "create_snapshot" => json!({ "sandbox": "nothing", "name": "s" }),
        "check_store" | "collect_garbage" => json!({}),
        _ => return None,
    })
}

/// The operation's path with `value` for each parameter, and the query parameters that it needs.
fn path(operation: &Operation<'_>, value: &str) -> String {
    let segments = operation.path.split('/');
    let mut path = segments
        .map(|segment| if segment.starts_with('{') { value } else { segment })
        .collect::<Vec<_>>()
        .join("/");
    if operation.parameters("query").contains(&"path") {
        path.push_str("?path=x");
    }
    path
}

/// A request that has no fault but what `path` has.
fn request(api: &Api, operation: &Operation<'_>, path: &str) -> RequestBuilder {
    let method = operation.method.to_uppercase();
    let mut request = api.request(&method, path);
    if operation.id() == "exec_stream" {
        request = super::socket::with_upgrade(request);
    }
    match body(operation) {
        Some(body) => request.header(CONTENT_TYPE, "application/json").body(body.to_string()),
        None => request,
    }
}

#[tokio::test]
async fn keys_are_needed_where_the_document_says() {
    let api = Api::start();
    for operation in api.document.operations() {
        let (method, path) = (operation.method.to_uppercase(), path(&operation, "nothing"));
        let wrong = format!("{}0", api.key);
        for (authorization, named) in [
            (None, "no `Authorization` header"),
            (Some("Bearer".to_owned()), "`Bearer` and a key"),
            (Some(format!("Basic {}", api.key)), "`Bearer` and a key"),
            (Some("Bearer \u{fc}".to_owned()), "`Bearer` and a key"),
            (Some("Bearer kiln_wrong".to_owned()), "not known"),
            (Some(format!("Bearer {wrong}")), "not known"),
        ] {
            let mut request = api.request_without_key(&method, &path);
            if let Some(value) = &authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let answer = api.send(request).await;
            if operation.is_open() {
                assert_eq!(answer.status, 200, "{answer}");
            } else {
                answer.refuses(401, "unauthorized", named);
                assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(!text.contains("kiln_wrong") && !text.contains(&wrong), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn routes_and_methods_that_are_not_there() {
    let api = Api::start();
    for path in ["/", "/v1", "/v1/", "/v2/health", "/v1/nothing", "/v1/images/a/b", "/v1/health/"] {
        let answer = api.ask("GET", path).await;
        answer.refuses(404, "route_not_found", path);
        api.send(api.request_without_key("GET", path)).await.refuses(404, "route_not_found", path);
    }
    for operation in api.document.operations() {
        let path = path(&operation, "nothing");
        for method in ["PATCH", "TRACE", "BREW"] {
            let answer = api.ask(method, &path).await;
            answer.refuses(405, "method_not_allowed", method);
            let allow = answer.headers.get("allow").map(|value| value.to_str().unwrap());
            let allow =
                allow.unwrap_or_else(|| panic!("RFC 9110 wants `Allow` with 405: {answer}"));
            let method = operation.method.to_uppercase();
            assert!(allow.split(',').any(|one| one.trim() == method), "{allow}: {answer}");
        }
    }
}

#[tokio::test]
async fn parameters_are_checked() {
    let api = Api::start();
    for operation in api.document.operations() {
        if !operation.parameters("path").is_empty() {
            for (value, named) in [("%FF", "UTF-8"), ("a%C3", "UTF-8")] {
                let answer = api.send(request(&api, &operation, &path(&operation, value))).await;
                answer.refuses(400, "invalid_request", named);
            }
            unknown_ids(&api, &operation).await;
        }
        queries(&api, &operation).await;
    }
}

async fn unknown_ids(api: &Api, operation: &Operation<'_>) {
    let (code, ids) = match operation.parameters("path")[..] {
        ["build"] => ("build_not_found", &["bld_0190163d8694739bb6c36d6a4e5ef6d0"][..]),
        ["sandbox"] => (
            "sandbox_not_found",
            &["nothing", "sbx_0190163d8694739bb6c36d6a4e5ef6d0", "a%20b", "%00", "%2e%2e%2fx"][..],
        ),
        ["snapshot"] => {
            ("snapshot_not_found", &["nothing", "snp_0190163d8694739bb6c36d6a4e5ef6d0"][..])
        }
        ["name"] => ("image_not_found", &["nothing", "nothing:here", "0123456789ab"][..]),
        ref other => panic!("a parameter {other:?}: say here what an unknown one is answered"),
    };
    for id in ids {
        let answer = api.send(request(api, operation, &path(operation, id))).await;
        let named = if id.contains('%') { "" } else { id };
        answer.refuses(404, code, named);
    }
}

async fn queries(api: &Api, operation: &Operation<'_>) {
    let names = operation.parameters("query");
    if names.is_empty() {
        return;
    }
    let plain = path(operation, "nothing").split('?').next().unwrap().to_owned();
    let required = if names.contains(&"path") { "path=x&" } else { "" };
    let mut cases = vec![(format!("{required}colour=red"), "colour".to_owned())];
    for name in &names {
        cases.push((format!("{required}{name}=1&{name}=2"), (*name).to_owned()));
        cases
            .push((format!("{required}{name}=%FF").replace("path=x&path", "path"), "UTF-8".into()));
        let wrong: &[&str] = match *name {
            "limit" => &["0", "1001", "-1", "1e2", "many", "4294967296", ""],
            "from" => &["-1", "x", "9223372036854775808", "18446744073709551616"],
            "force" | "recursive" => &["perhaps", "1", ""],
            "mode" => &["8", "rw-r--r--", "77777", "-1", ""],
            "path" => {
                cases.push((String::new(), "path".to_owned()));
                cases.push(("path=".to_owned(), "path".to_owned()));
                cases.push(("path=a%00b".to_owned(), "path".to_owned()));
                continue;
            }
            "cursor" => &["x", "sbx_1", "%00"],
            other => panic!("a parameter {other}: say here what is wrong for it"),
        };
        for value in wrong {
            cases.push((format!("{required}{name}={value}"), (*name).to_owned()));
        }
    }
    for (query, named) in cases {
        let answer = api.send(request(api, operation, &format!("{plain}?{query}"))).await;
        assert_eq!(answer.status, 400, "{query}: {answer}");
        answer.refuses(400, "invalid_request", &named);
    }
}

#[tokio::test]
async fn bodies_are_checked() {
    let api = Api::start();
    let mut checked = 0;
    for operation in api.document.operations() {
        let Some(schema) = api.document.body(&operation) else { continue };
        checked += 1;
        let good = body(&operation).unwrap_or_else(|| panic!("a body for {}", operation.title()));
        api.document.conforms(schema, &good, "body").unwrap();
        form(&api, &operation, &good).await;
        fields(&api, &operation, schema, &good).await;
    }
    assert!(checked >= 5, "{checked}");
}

/// Bodies that are not JSON, and media types.
async fn form(api: &Api, operation: &Operation<'_>, good: &Value) {
    let path = path(operation, "nothing");
    let text = good.to_string();
    let cut = &text[..text.len() - 1];
    for (body, named) in [
        (b"".to_vec(), "the body is empty"),
        (b"  \n".to_vec(), "the body is empty"),
        (cut.into(), "line 1 column"),
        (format!("{text} x").into(), "trailing"),
        (format!("{text}{text}").into(), "trailing"),
        ([text.as_bytes(), b"\xff"].concat(), "line 1 column"),
        (b"{\"\xff\": 1}".to_vec(), "line 1 column"),
        (b"[]".to_vec(), "array"),
        (json!([good]).to_string().into(), "array"),
        (b"null".to_vec(), "body"),
        (b"\"text\"".to_vec(), "body"),
        (b"7".to_vec(), "body"),
        ("[".repeat(100_000).into(), "body"),
    ] {
        api.post(&path, body).await.refuses(400, "invalid_request", named);
    }
    for (media_type, named) in [
        (None, "Content-Type"),
        (Some("text/plain"), "text/plain"),
        (Some("application/x-www-form-urlencoded"), "form-urlencoded"),
    ] {
        let mut request = api.request("POST", &path).body(text.clone());
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        api.send(request).await.refuses(415, "unsupported_media_type", named);
    }
}

/// Each field of the schema: missing, of a wrong type, beside one that is not known.
async fn fields(api: &Api, operation: &Operation<'_>, schema: &Value, good: &Value) {
    let path = path(operation, "nothing");
    let refused = async |body: &Value, named: &str| {
        api.post(&path, body.to_string()).await.refuses(400, "invalid_request", named);
    };
    let mut unknown = good.clone();
    unknown["colour"] = json!("red");
    refused(&unknown, "colour").await;
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        refused(&body, name).await;
        body[name] = Value::Null;
        refused(&body, name).await;
    }
    for (name, property) in schema["properties"].as_object().unwrap() {
        let property = api.document.resolve(property);
        for wrong in [json!({ "colour": 1 }), json!([{}]), json!("text"), json!(-1), json!(true)] {
            if api.document.conforms(property, &wrong, "").is_err() {
                let mut body = good.clone();
                body[name] = wrong;
                refused(&body, name).await;
            }
        }
    }
}

#[tokio::test]
async fn huge_bodies_are_refused() {
    const LIMIT: usize = 64 << 20;
    let api = Api::start();
    for operation in api.document.operations() {
        let Some(good) = body(&operation) else { continue };
        let mut body = good.to_string().into_bytes();
        body.resize(LIMIT + 1, b' ');
        let answer = api.post(&path(&operation, "nothing"), body).await;
        answer.refuses(413, "payload_too_large", "64 MiB");
    }
    assert_eq!(api.ask("GET", "/v1/health").await.status, 200);
}

/// Refused whatever its status is, but never by a fault of the daemon.
#[track_caller]
fn is_refused(answer: &Answer) {
    assert!((400..500).contains(&answer.status), "{answer}");
}
