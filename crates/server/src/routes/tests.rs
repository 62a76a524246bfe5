//! The router, asked in process: authentication, problems, pagination, and what a failed start leaves.

mod driven;
mod driver;
mod fixture;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use kiln_roots::UpperLimits;
use kiln_types::SandboxId;
use kiln_types::api::SandboxStatus;
use serde_json::json;

use fixture::{Fixture, answer};

#[tokio::test]
async fn keys_open_the_api() {
    let fixture = Fixture::new().await;
    for (path, authorization, status) in [
        ("/v1/health", None, 200),
        ("/v1/openapi.json", None, 200),
        ("/v1/sandboxes", Some("Bearer kiln_0123"), 200),
        ("/v1/sandboxes", Some("bearer kiln_0123"), 200),
        ("/v1/sandboxes", None, 401),
        ("/v1/sandboxes", Some("Bearer kiln_012"), 401),
        ("/v1/sandboxes", Some("Bearer"), 401),
        ("/v1/sandboxes", Some("Basic kiln_0123"), 401),
        ("/v1/images/pull", None, 401),
        ("/v1/nothing", None, 404),
    ] {
        let mut request = Request::builder().uri(path);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let answer = answer(&fixture.closed, request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {authorization:?}");
        if status == 401 {
            answer.is_problem(401, "unauthorized", "api-key");
            assert!(
                answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer")
            );
        }
    }
    assert_eq!(fixture.get("/v1/sandboxes").await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let fixture = Fixture::new().await;
    let build = kiln_types::BuildId::new();
    let get = Method::GET;
    for (method, path, status, code, text) in [
        (&get, "/", 404, "route_not_found", "openapi.json"),
        (&get, "/v1/images/a/b", 404, "route_not_found", "%2F"),
        (&Method::PATCH, "/v1/sandboxes", 405, "method_not_allowed", "PATCH"),
        (&Method::POST, "/v1/health", 405, "method_not_allowed", "POST"),
        (&get, "/v1/sandboxes/nothing", 404, "sandbox_not_found", "kiln ps"),
        (&get, &format!("/v1/sandboxes/{}", SandboxId::new()), 404, "sandbox_not_found", "sbx_"),
        (&get, "/v1/images/nothing", 404, "image_not_found", "nothing"),
        (&get, "/v1/images/pull", 404, "image_not_found", "pull"),
        (&get, "/v1/images/No%20Name", 400, "invalid_reference", "No Name"),
        (&get, "/v1/snapshots/nothing", 404, "snapshot_not_found", "kiln snapshots"),
        (
            &get,
            &format!("/v1/snapshots/{}", kiln_types::SnapshotId::new()),
            404,
            "snapshot_not_found",
            "snp_",
        ),
        (&Method::DELETE, "/v1/snapshots/nothing", 404, "snapshot_not_found", "nothing"),
        (&get, &format!("/v1/builds/{build}"), 404, "build_not_found", "bld_"),
        (&get, &format!("/v1/builds/{build}/log"), 404, "build_not_found", "bld_"),
        (&get, "/v1/builds/bld_1", 400, "invalid_request", "is not a build id"),
        (&get, "/v1/sandboxes/%FF", 400, "invalid_request", "UTF-8"),
        (&get, "/v1/sandboxes?limit=0", 400, "invalid_request", "`limit` is 0"),
        (&get, "/v1/sandboxes?limit=many", 400, "invalid_request", "limit"),
        (&get, "/v1/sandboxes?lmit=1", 400, "invalid_request", "`lmit` is no query parameter"),
        (&get, "/v1/sandboxes?cursor=1", 400, "invalid_request", "`cursor` is `1`"),
        (&get, "/v1/images?cursor=x", 400, "invalid_request", "`cursor` is `x`"),
        (&Method::DELETE, "/v1/sandboxes/a?force=perhaps", 400, "invalid_request", "force"),
        (&get, "/v1/sandboxes/a/files", 400, "invalid_request", "missing field `path`"),
        (&get, "/v1/sandboxes/a/files?path=", 400, "invalid_request", "`path`"),
        (&get, "/v1/sandboxes/a/files?path=x&mode=644", 400, "invalid_request", "`mode`"),
        (&Method::PUT, "/v1/sandboxes/a/files?path=x&mode=9", 400, "invalid_request", "octal"),
        (&get, "/v1/sandboxes/a/files?path=x", 404, "sandbox_not_found", "`a`"),
        (&get, "/v1/sandboxes/a/exec/stream", 400, "invalid_request", "WebSocket"),
        (&Method::POST, "/v1/sandboxes/a/start", 404, "sandbox_not_found", "`a`"),
        (&Method::POST, "/v1/sandboxes/a/stop", 404, "sandbox_not_found", "`a`"),
    ] {
        let answer = fixture.ask(method.clone(), path, None).await;
        answer.is_problem(status, code, text);
    }
}

#[tokio::test]
async fn bodies_are_checked() {
    let fixture = Fixture::new().await;
    for (path, body, status, code, text) in [
        ("/v1/sandboxes", json!({}), 400, "invalid_request", "missing field `image`"),
        (
            "/v1/sandboxes",
            json!({"image": "x", "cpu": 1}),
            400,
            "invalid_request",
            "unknown field `cpu`",
        ),
        (
            "/v1/sandboxes",
            json!({"image": "x", "limits": {"vcpu": "2"}}),
            400,
            "invalid_request",
            "`limits.vcpu`",
        ),
        (
            "/v1/sandboxes",
            json!({"image": "x", "name": "a b"}),
            400,
            "invalid_request",
            "`name` is",
        ),
        ("/v1/sandboxes", json!({"image": "x", "env": {"A=B": ""}}), 400, "invalid_request", "A=B"),
        ("/v1/sandboxes", json!({"image": "nothing"}), 404, "image_not_found", "nothing"),
        ("/v1/sandboxes/a/exec", json!({"argv": ["x"]}), 404, "sandbox_not_found", "`a`"),
        (
            "/v1/sandboxes/a/exec",
            json!({"argv": ["x"], "pty": {"rows": 1, "cols": 1}}),
            400,
            "invalid_request",
            "exec/stream",
        ),
        (
            "/v1/snapshots",
            json!({"sandbox": "a", "name": "A"}),
            400,
            "invalid_reference",
            "upper-case",
        ),
        ("/v1/snapshots", json!({"sandbox": "a", "name": "fine"}), 404, "sandbox_not_found", "`a`"),
        ("/v1/images/pull", json!({"reference": "A"}), 400, "invalid_reference", "upper-case"),
        (
            "/v1/builds",
            json!({"source": {"template": {"name": "x"}}}),
            400,
            "invalid_request",
            "base_image",
        ),
        (
            "/v1/builds",
            json!({"source": {"template": {"name": "X", "base_image": "debian-12"}}}),
            400,
            "invalid_definition",
            "name",
        ),
        (
            "/v1/builds",
            json!({"source": {"definition": {"base": {"catalog": "debian-12"}, "steps": [{"type": "run", "command": {"argv": ["a", "&&", "b"]}}]}}}),
            400,
            "shell_operator_in_argv",
            "a && b",
        ),
    ] {
        let answer = fixture.ask(Method::POST, path, Some(body.clone())).await;
        answer.is_problem(status, code, text);
    }
    let post = |content_type: Option<&str>, body: Body| {
        let mut request = Request::builder().method(Method::POST).uri("/v1/sandboxes");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        request.body(body).unwrap()
    };
    for (content_type, body, status, code, text) in [
        (None, Body::from("{}"), 415, "unsupported_media_type", "Content-Type"),
        (Some("text/plain"), Body::from("{}"), 415, "unsupported_media_type", "text/plain"),
        (Some("application/json"), Body::from("{"), 400, "invalid_request", "line 1 column 1"),
        (
            Some("application/json; charset=utf-8"),
            Body::from("{}"),
            400,
            "invalid_request",
            "image",
        ),
        (
            Some("application/json"),
            Body::from(vec![b' '; (64 << 20) + 1]),
            413,
            "payload_too_large",
            "64 MiB",
        ),
    ] {
        answer(&fixture.open, post(content_type, body)).await.is_problem(status, code, text);
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let fixture = Fixture::new().await;
    let image = fixture.image("base").await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(fixture.sandbox(image, None).await.to_string());
    }
    made.reverse();
    let (mut seen, mut pages, mut path) = (Vec::new(), 0, "/v1/sandboxes?limit=2".to_owned());
    loop {
        let answer = fixture.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        pages += 1;
        for item in answer.body["items"].as_array().unwrap() {
            seen.push(item["id"].as_str().unwrap().to_owned());
        }
        match answer.body["next"].as_str() {
            Some(cursor) => path = format!("/v1/sandboxes?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!((pages, seen), (3, made));
}

#[tokio::test]
async fn images_are_found_and_removed_by_name() {
    let fixture = Fixture::new().await;
    let digest = fixture.image("docker.io/library/debian:12").await;
    let path = "/v1/images/docker.io%2Flibrary%2Fdebian:12";
    let answer = fixture.get(path).await;
    assert_eq!(answer.body["digest"], digest.to_string());
    assert_eq!(fixture.get("/v1/images").await.body["items"][0], answer.body);
    let sandbox = fixture.sandbox(digest, Some("user")).await;
    let in_use = fixture.ask(Method::DELETE, path, None).await;
    in_use.is_problem(409, "image_in_use", &sandbox.to_string());
    assert_eq!(fixture.ask(Method::DELETE, "/v1/sandboxes/user", None).await.status, 204);
    let removed = fixture.ask(Method::DELETE, path, None).await;
    assert_eq!(removed.body["image"], digest.to_string(), "{}", removed.body);
    fixture.get(path).await.is_problem(404, "image_not_found", "debian:12");
}

#[tokio::test]
async fn a_failed_start_leaves_nothing() {
    let fixture = Fixture::new().await;
    let image = fixture.image("base").await;
    let body = json!({"image": "base", "name": "box"});
    let failed = fixture.ask(Method::POST, "/v1/sandboxes", Some(body)).await;
    failed.is_problem(500, "internal", "start anything");
    assert_eq!(fixture.get("/v1/sandboxes").await.body["items"], json!([]));
    assert_eq!(
        std::fs::read_dir(fixture.data.path().join("uppers"))
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("sbx_")
            })
            .count(),
        0
    );
    // The name is free again, and a name that is taken is refused before anything is made.
    fixture.sandbox(image, Some("box")).await;
    let body = json!({"image": "base", "name": "box"});
    let taken = fixture.ask(Method::POST, "/v1/sandboxes", Some(body)).await;
    taken.is_problem(409, "name_in_use", "kiln rm box");
}

#[tokio::test]
async fn what_does_not_run_takes_no_commands() {
    let fixture = Fixture::new().await;
    let image = fixture.image("base").await;
    let id = fixture.sandbox(image, Some("box")).await;
    for sandbox in ["box".to_owned(), id.to_string()] {
        let body = Some(json!({"argv": ["true"]}));
        let exec = fixture.ask(Method::POST, &format!("/v1/sandboxes/{sandbox}/exec"), body).await;
        exec.is_problem(409, "sandbox_not_running", "kiln start");
    }
    let stopped = fixture.ask(Method::POST, "/v1/sandboxes/box/stop", None).await;
    assert_eq!((stopped.status, &stopped.body["status"]), (StatusCode::OK, &json!("stopped")));
    let started = fixture.ask(Method::POST, "/v1/sandboxes/box/start", None).await;
    started.is_problem(500, "internal", "start anything");
    assert_eq!(fixture.get("/v1/sandboxes/box").await.body["status"], "stopped");
}

#[tokio::test]
async fn an_unchanged_disk_makes_a_snapshot_that_keeps_its_image() {
    let fixture = Fixture::new().await;
    let image = fixture.image("base").await;
    let id = fixture.sandbox(image, None).await;
    fixture.app.roots.uppers().create(&id.to_string(), UpperLimits::default()).unwrap();
    let body = json!({"sandbox": id.to_string(), "name": "saved"});
    let made = fixture.ask(Method::POST, "/v1/snapshots", Some(body.clone())).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!(
        (&made.body["image"], &made.body["status"]),
        (&json!(image.to_string()), &json!("ready"))
    );
    let again = fixture.ask(Method::POST, "/v1/snapshots", Some(body)).await;
    again.is_problem(409, "name_in_use", "saved");
    let by_id = format!("/v1/snapshots/{}", made.body["id"].as_str().unwrap());
    assert_eq!(fixture.get(&by_id).await.body, made.body);
    assert_eq!(fixture.ask(Method::DELETE, &by_id, None).await.status, 204);
    fixture.get("/v1/snapshots/saved").await.is_problem(404, "snapshot_not_found", "saved");
    assert_eq!(fixture.get("/v1/images/base").await.body["digest"], image.to_string());
}

#[tokio::test]
async fn the_start_of_the_daemon_brings_order() {
    let fixture = Fixture::new().await;
    let image = fixture.image("base").await;
    let metadata = fixture.app.images.metadata();
    let uppers = fixture.app.roots.uppers();
    let mut ids = Vec::new();
    for status in [SandboxStatus::Running, SandboxStatus::Removing, SandboxStatus::Stopped] {
        let id = fixture.sandbox(image, None).await;
        let mut record = metadata.get_sandbox(&id).await.unwrap().unwrap();
        record.status = status;
        metadata.update_sandbox(&record).await.unwrap();
        uppers.create(&id.to_string(), UpperLimits::default()).unwrap();
        ids.push(id);
    }
    uppers.create("nobodys", UpperLimits::default()).unwrap();
    fixture.app.sandboxes.reconcile().await.unwrap();
    let died = fixture.get(&format!("/v1/sandboxes/{}", ids[0])).await.body;
    assert_eq!(died["status"], "stopped");
    assert!(died["reason"].as_str().unwrap().contains("while the daemon was not running"));
    assert_eq!(metadata.get_sandbox(&ids[1]).await.unwrap(), None);
    let mut kept = vec![ids[0].to_string(), ids[2].to_string()];
    kept.sort();
    assert_eq!(uppers.list().unwrap(), kept);
}

#[tokio::test]
async fn request_ids_come_back() {
    let fixture = Fixture::new().await;
    for (given, kept) in [("my-id_1", true), ("bad id", false), (&"x".repeat(65), false)] {
        let request = Request::builder().uri("/v1/health").header("x-request-id", given);
        let answer = answer(&fixture.open, request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.headers["x-request-id"] == given, kept, "{given}");
    }
}
