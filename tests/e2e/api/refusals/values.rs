//! Values that have the right type and mean nothing.

use serde_json::{Value, json};

use super::is_refused;
use crate::api::caller::Api;
use crate::fixture::busybox;

#[tokio::test]
async fn values_are_refused_by_name() {
    let api = Api::with_box();
    let exec = "/v1/sandboxes/b/exec";
    let argv = |more: Value| with(json!({ "argv": ["true"] }), more);
    let image = |more: Value| with(json!({ "image": "box" }), more);
    let long = "x".repeat(64);
    for (path, body, status, code, named) in [
        ("/v1/sandboxes", json!({ "image": "" }), 400, "invalid_reference", "image"),
        ("/v1/sandboxes", json!({ "image": "No Name" }), 400, "invalid_reference", "No Name"),
        ("/v1/sandboxes", json!({ "image": "nothing" }), 404, "image_not_found", "nothing"),
        ("/v1/sandboxes", image(json!({ "name": "" })), 400, "invalid_request", "name"),
        ("/v1/sandboxes", image(json!({ "name": "a/b" })), 400, "invalid_request", "a/b"),
        ("/v1/sandboxes", image(json!({ "name": "-rf" })), 400, "invalid_request", "-rf"),
        ("/v1/sandboxes", image(json!({ "name": ".." })), 400, "invalid_request", "name"),
        ("/v1/sandboxes", image(json!({ "name": long })), 400, "invalid_request", "name"),
        ("/v1/sandboxes", image(json!({ "name": "b" })), 409, "name_in_use", "b"),
        ("/v1/sandboxes", image(json!({ "env": { "": "x" } })), 400, "invalid_request", "env"),
        ("/v1/sandboxes", image(json!({ "env": { "A=B": "x" } })), 400, "invalid_request", "A=B"),
        ("/v1/sandboxes", image(json!({ "env": { "A": 1 } })), 400, "invalid_request", "env.A"),
        (
            "/v1/sandboxes",
            image(json!({ "limits": { "vcpu": 0 } })),
            400,
            "invalid_request",
            "limits.vcpu",
        ),
        (
            "/v1/sandboxes",
            image(json!({ "limits": { "memory_mib": 4_294_967_295_u32 } })),
            400,
            "invalid_request",
            "limits.memory_mib",
        ),
        (
            "/v1/sandboxes",
            image(json!({ "limits": { "pids": 1.5 } })),
            400,
            "invalid_request",
            "limits.pids",
        ),
        (
            "/v1/sandboxes",
            image(json!({ "limits": { "cpu": 1 } })),
            400,
            "invalid_request",
            "limits.cpu",
        ),
        (exec, json!({ "argv": [] }), 400, "invalid_request", "argv"),
        (exec, json!({ "argv": [""] }), 400, "invalid_request", "argv"),
        (exec, json!({ "argv": ["a\0b"] }), 400, "invalid_request", "argv"),
        (exec, json!({ "argv": ["a", 1] }), 400, "invalid_request", "argv[1]"),
        (exec, json!({ "argv": ["a", "&&", "b"] }), 400, "shell_operator_in_argv", "&&"),
        (exec, json!({ "argv": ["no-such-program"] }), 422, "exec_failed", "no-such-program"),
        (exec, json!({ "argv": ["/etc/passwd"] }), 422, "exec_failed", "/etc/passwd"),
        (exec, argv(json!({ "cwd": "/nowhere" })), 422, "exec_failed", "/nowhere"),
        (exec, argv(json!({ "cwd": "" })), 400, "invalid_request", "cwd"),
        (exec, argv(json!({ "user": "nobody-here" })), 422, "exec_failed", "nobody-here"),
        (exec, argv(json!({ "user": "" })), 400, "invalid_request", "user"),
        (exec, argv(json!({ "timeout_ms": 0 })), 400, "invalid_request", "timeout_ms"),
        (exec, argv(json!({ "timeout_ms": -1 })), 400, "invalid_request", "timeout_ms"),
        (exec, argv(json!({ "env": { "A\0": "" } })), 400, "invalid_request", "env"),
        (exec, argv(json!({ "pty": { "rows": 1, "cols": 1 } })), 400, "invalid_request", "pty"),
        ("/v1/snapshots", json!({ "sandbox": "b", "name": "" }), 400, "invalid_reference", ""),
        (
            "/v1/snapshots",
            json!({ "sandbox": "b", "name": "No Name" }),
            400,
            "invalid_reference",
            "No Name",
        ),
        ("/v1/snapshots", json!({ "sandbox": "b", "name": "box" }), 409, "name_in_use", "box"),
        ("/v1/snapshots", json!({ "sandbox": "", "name": "s" }), 404, "sandbox_not_found", ""),
        ("/v1/images/pull", json!({ "reference": "" }), 400, "invalid_reference", ""),
        ("/v1/images/pull", json!({ "reference": "a b" }), 400, "invalid_reference", "a b"),
        (
            "/v1/images/pull",
            json!({ "reference": "127.0.0.1:1/x", "name": "No" }),
            400,
            "invalid_reference",
            "No",
        ),
    ] {
        let answer = api.post(path, body.to_string()).await;
        assert_eq!(answer.status, status, "{body}: {answer}");
        answer.refuses(status, code, named);
    }
    // Sizes that no process takes.
    let megabytes = |count: usize| "x".repeat(count << 20);
    for body in [
        json!({ "argv": ["echo", megabytes(1)] }),
        json!({ "argv": ["echo", megabytes(20)] }),
        argv(json!({ "env": { "A": megabytes(20) } })),
        argv(json!({ "cwd": format!("/{}", megabytes(1)) })),
    ] {
        is_refused(&api.post(exec, body.to_string()).await);
    }
    // No refusal did any harm.
    let list = api.ask("GET", "/v1/sandboxes").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(api.shell("echo fine").await, "fine\n");
}

#[tokio::test]
async fn builds_are_checked_before_they_run() {
    let api = Api::start();
    let template = |field: &str, value: Value| {
        let mut template = json!({ "name": "x", "base_image": busybox() });
        template[field] = value;
        json!({ "source": { "template": template } })
    };
    let step = |step: Value| json!({ "source": { "definition": { "base": { "rootfs": busybox() }, "steps": [step] } } });
    for (body, code, named) in [
        (json!({ "source": {} }), "invalid_request", "source"),
        (json!({ "source": { "dockerfile": "FROM x" } }), "invalid_request", "dockerfile"),
        (template("colour", json!(1)), "invalid_request", "colour"),
        (template("name", json!("No Name")), "invalid_definition", "No Name"),
        (template("base_image", json!("")), "invalid_definition", "base_image"),
        (template("apt_packages", json!(["-y"])), "invalid_definition", "-y"),
        (template("env", json!({ "A=B": "" })), "invalid_definition", "A=B"),
        (template("vcpu", json!(0)), "invalid_definition", "vcpu"),
        (template("vcpu", json!(-1)), "invalid_request", "vcpu"),
        (template("setup_commands", json!("true")), "invalid_request", "setup_commands"),
        (step(json!({ "type": "dance" })), "invalid_request", "dance"),
        (step(json!({ "type": "run" })), "invalid_request", "command"),
        (step(json!({ "type": "user", "user": "a", "x": 1 })), "invalid_request", "x"),
        (
            step(json!({ "type": "run", "command": { "argv": ["a", "|", "b"] } })),
            "shell_operator_in_argv",
            "|",
        ),
        (
            step(json!({ "type": "file", "path": "rel", "content_base64": "" })),
            "invalid_definition",
            "rel",
        ),
        (
            step(json!({ "type": "file", "path": "/f", "content_base64": "?" })),
            "invalid_definition",
            "content_base64",
        ),
        (step(json!({ "type": "workdir", "path": "rel" })), "invalid_definition", "rel"),
    ] {
        let answer = api.post("/v1/builds", body.to_string()).await;
        assert_eq!(answer.status, 400, "{body}: {answer}");
        answer.refuses(400, code, named);
    }
    let list = api.ask("GET", "/v1/builds").await.json();
    assert_eq!(list, json!({ "items": [] }), "a refused build has no row");
}

/// `body` with further fields.
fn with(mut body: Value, more: Value) -> Value {
    let Value::Object(mut more) = more else { panic!("{more} has no fields") };
    body.as_object_mut().unwrap().append(&mut more);
    body
}
