//! Requests that would be right in another state of what they are for.

use serde_json::json;

use super::{path, request};
use crate::api::caller::Api;

/// Every operation on a sandbox that does not run, and on one that does.
#[tokio::test]
async fn the_state_of_a_sandbox_is_heeded() {
    let api = Api::with_box();
    api.kiln.ok(&["create", "box", "--name", "off"]);
    api.kiln.ok(&["stop", "off"]);
    let before = api.state().await;
    let mut refused = 0;
    for operation in api.document.operations() {
        if operation.parameters("path") != ["sandbox"] {
            continue;
        }
        let answer = match operation.id() {
            // What is right in every state, or what `lifecycle` looks at.
            "get_sandbox" | "start_sandbox" | "stop_sandbox" => continue,
            "remove_sandbox" => {
                let answer = api.ask("DELETE", "/v1/sandboxes/b").await;
                answer.refuses(409, "sandbox_not_stopped", "sbx_");
                answer
            }
            _ => {
                let answer = api.send(request(&api, &operation, &path(&operation, "off"))).await;
                answer.refuses(409, "sandbox_not_running", "");
                answer
            }
        };
        let problem = answer.json();
        assert!(problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{answer}");
        refused += 1;
    }
    assert!(refused >= 8, "{refused}");
    let body = json!({ "sandbox": "nothing", "name": "s" }).to_string();
    api.post("/v1/snapshots", body).await.refuses(404, "sandbox_not_found", "nothing");
    api.ask("DELETE", "/v1/images/box").await.refuses(409, "image_in_use", "sbx_");
    let body = json!({ "image": "box", "name": "off" }).to_string();
    api.post("/v1/sandboxes", body).await.refuses(409, "name_in_use", "off");
    assert_eq!(api.state().await, before, "a refusal changed something");
}
