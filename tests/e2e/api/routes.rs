//! Every route of the OpenAPI document, each with a success.

use kiln_testkit::{Compression, ImageBuilder, Registry};
use serde_json::json;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::caller::Api;
use crate::fixture::busybox;

#[tokio::test]
async fn every_route_answers_as_documented() {
    let registry = Registry::start().await;
    let host = registry.host();
    let image = ImageBuilder::new()
        .layer_bytes(std::fs::read(busybox()).unwrap(), Compression::Gzip)
        .build();
    registry.put("team/app", "v1", &image);
    let api = Api::start_with(&format!("[registries]\nplain_http = [{host:?}]\n"));
    system(&api).await;
    builds(&api).await;
    pull(&api, &host, &image.digest.to_string()).await;
    sandboxes(&api).await;
    files(&api).await;
    commands(&api).await;
    snapshots(&api).await;
    store(&api).await;
    removals(&api).await;
    let missing: Vec<_> = api.document.titles().difference(&api.exercised()).cloned().collect();
    assert!(missing.is_empty(), "no success of {missing:?}: exercise them here");
    assert_eq!(api.exercised(), api.document.titles());
}

async fn system(api: &Api) {
    let health = api.send(api.request_without_key("GET", "/v1/health")).await.is(200).json();
    assert_eq!(health["status"], "ok");
    assert_eq!(api.client.health().await.unwrap().sandboxes_running, 0);
    let served = api.send(api.request_without_key("GET", "/v1/openapi.json")).await.is(200);
    assert_eq!(&served.json(), api.document.value(), "docs/openapi.json is not of this code");
    let report = api.ask("GET", "/v1/doctor").await.is(200).json();
    assert_eq!(report["usable"], true, "{report}");
    assert_eq!(api.client.doctor().await.unwrap().checks.len(), length(&report["checks"]));
}

async fn builds(api: &Api) {
    let source = json!({ "definition": {
        "base": { "rootfs": busybox() },
        "steps": [{ "type": "run", "command": { "shell": "echo built > /built" } }],
    } });
    let body = json!({ "source": source, "name": "built:1" }).to_string();
    let accepted = api.post("/v1/builds", body).await.is(202);
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(accepted.headers["location"], format!("/v1/builds/{id}"));
    let log = api.ask("GET", &format!("/v1/builds/{id}/log")).await.is(200);
    assert!(String::from_utf8(log.body).unwrap().contains("\"finished\""));
    let build = api.ask("GET", &format!("/v1/builds/{id}")).await.is(200).json();
    assert_eq!((&build["status"], &build["name"]), (&json!("succeeded"), &json!("built:1")));
    let list = api.ask("GET", "/v1/builds").await.is(200).json();
    assert_eq!(list["items"], json!([build]));
    assert_eq!(serde_json::to_value(api.client.builds().await.unwrap()).unwrap(), list["items"]);
}

async fn pull(api: &Api, host: &str, digest: &str) {
    let body = json!({ "reference": format!("{host}/team/app:v1"), "name": "pulled" }).to_string();
    let pulled = api.post("/v1/images/pull", body).await.is(200).json();
    assert_eq!(pulled["digest"], digest);
    let list = api.ask("GET", "/v1/images").await.is(200).json();
    // The third is the base of the one that was built, an image without a name.
    assert_eq!((length(&list["items"]), &list["items"][0]), (3, &pulled));
    // By every way to write it.
    let reference = pulled["names"][0].as_str().unwrap().replace('/', "%2F");
    for name in ["pulled", "pulled:latest", digest, &digest[7..19], &reference] {
        assert_eq!(api.ask("GET", &format!("/v1/images/{name}")).await.is(200).json(), pulled);
    }
    let typed = api.client.image(pulled["names"][0].as_str().unwrap()).await.unwrap();
    assert_eq!(serde_json::to_value(typed).unwrap(), pulled);
}

async fn sandboxes(api: &Api) {
    let body = json!({
        "image": "built:1", "name": "b", "env": { "A": "b" },
        "limits": { "vcpu": 1, "memory_mib": 256, "pids": 64 },
    });
    let made = api.post("/v1/sandboxes", body.to_string()).await.is(201);
    let sandbox = made.json();
    let id = sandbox["id"].as_str().unwrap();
    assert_eq!(made.headers["location"], format!("/v1/sandboxes/{id}"));
    for field in ["image", "name", "env"] {
        assert_eq!(sandbox[field], body[field], "{sandbox}");
    }
    // What was not asked for may be limited too.
    for limit in ["vcpu", "memory_mib", "pids"] {
        assert_eq!(sandbox["limits"][limit], body["limits"][limit], "{sandbox}");
    }
    assert_eq!(sandbox["status"], "running");
    for name in ["b", id] {
        let one = api.ask("GET", &format!("/v1/sandboxes/{name}")).await.is(200).json();
        assert_eq!(one, sandbox);
    }
    let list = api.ask("GET", "/v1/sandboxes").await.is(200).json();
    assert_eq!(list, json!({ "items": [sandbox] }));
    for (action, status) in
        [("stop", "stopped"), ("stop", "stopped"), ("start", "running"), ("start", "running")]
    {
        let path = format!("/v1/sandboxes/b/{action}");
        assert_eq!(api.ask("POST", &path).await.is(200).json()["status"], status);
    }
}

async fn files(api: &Api) {
    let files = "/v1/sandboxes/b/files";
    api.ask("POST", &format!("{files}/mkdir?path=d/e&mode=700")).await.is(204);
    let put = api.request("PUT", &format!("{files}?path=d/e/f&mode=600"));
    api.send(put.body("content")).await.is(204);
    let read = api.ask("GET", &format!("{files}?path=d/e/f")).await.is(200);
    assert_eq!(read.body, b"content");
    let entry = api.ask("GET", &format!("{files}/stat?path=d/e/f")).await.is(200).json();
    assert_eq!((&entry["size"], &entry["mode"]), (&json!(7), &json!(0o600)));
    let list = api.ask("GET", &format!("{files}/list?path=d/e")).await.is(200).json();
    assert_eq!(list["entries"], json!([entry]));
    api.ask("DELETE", &format!("{files}?path=d&recursive=true")).await.is(204);
}

async fn commands(api: &Api) {
    assert_eq!(api.shell("cat /built; echo $A").await, "built\nb\n");
    let mut request =
        format!("{}/v1/sandboxes/b/exec/stream", api.kiln.url().replace("http", "ws"))
            .into_client_request()
            .unwrap();
    let value = format!("Bearer {}", api.key).parse().unwrap();
    request.headers_mut().insert("authorization", value);
    let (socket, response) = connect_async(request).await.unwrap();
    assert_eq!(response.status(), 101);
    drop(socket);
    // The caller takes note of it as well.
    api.send(super::socket::upgrade(api, "b")).await.is(101);
}

async fn snapshots(api: &Api) {
    api.shell("echo kept > /kept").await;
    let body = json!({ "sandbox": "b", "name": "saved" }).to_string();
    let made = api.post("/v1/snapshots", body).await.is(201);
    let snapshot = made.json();
    let id = snapshot["id"].as_str().unwrap();
    assert_eq!(made.headers["location"], format!("/v1/snapshots/{id}"));
    assert_eq!(snapshot["status"], "ready");
    for name in ["saved", id] {
        let one = api.ask("GET", &format!("/v1/snapshots/{name}")).await.is(200).json();
        assert_eq!(one, snapshot);
    }
    let list = api.ask("GET", "/v1/snapshots").await.is(200).json();
    assert_eq!(list, json!({ "items": [snapshot] }));
    let typed = api.client.snapshots().await.unwrap();
    assert_eq!(serde_json::to_value(typed).unwrap(), list["items"]);
}

async fn store(api: &Api) {
    let report = api.post("/v1/store/fsck", "{}".to_owned()).await.is(200).json();
    assert_eq!((&report["clean"], &report["findings"]), (&json!(true), &json!([])), "{report}");
    let plan =
        api.post("/v1/store/gc", json!({ "dry_run": true }).to_string()).await.is(200).json();
    assert_eq!((&plan["dry_run"], &plan["items"]), (&json!(true), &json!([])), "{plan}");
    let usage = api.ask("GET", "/v1/store/usage").await.is(200).json();
    assert_eq!(length(&usage["snapshots"]), 1, "{usage}");
    assert_eq!(api.client.usage().await.unwrap().sandboxes.len(), length(&usage["sandboxes"]));
}

async fn removals(api: &Api) {
    api.ask("DELETE", "/v1/snapshots/saved").await.is(204);
    api.ask("DELETE", "/v1/sandboxes/b").await.refuses(409, "sandbox_not_stopped", "sbx_");
    api.ask("DELETE", "/v1/sandboxes/b?force=true").await.is(204);
    let removed = api.ask("DELETE", "/v1/images/pulled").await.is(200).json();
    assert!(removed["image"].is_string(), "{removed}");
    for image in api.client.images().await.unwrap() {
        let removed = api.client.remove_image(&image.digest.to_string()).await.unwrap();
        assert_eq!(removed.image, Some(image.digest));
    }
    for list in ["sandboxes", "images", "snapshots"] {
        let list = api.ask("GET", &format!("/v1/{list}")).await.is(200).json();
        assert_eq!(list, json!({ "items": [] }));
    }
}

fn length(list: &serde_json::Value) -> usize {
    list.as_array().unwrap().len()
}
