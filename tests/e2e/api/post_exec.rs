//! Commands by `POST`: buffered, and as server-sent events.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_types::ErrorCode;
use kiln_types::api::{ExecRequest, ExecResult};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::caller::Api;
use super::events::Event;
use crate::daemon::eventually;

fn shell(script: &str) -> ExecRequest {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    ExecRequest { argv, ..ExecRequest::default() }
}

impl Api {
    async fn exec(&self, request: ExecRequest) -> ExecResult {
        self.client.exec("b", &request).await.unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }

    async fn exec_events(&self, body: Value) -> Vec<Event> {
        let request = self
            .request("POST", "/v1/sandboxes/b/exec")
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        self.events(request).await.rest().await
    }
}

#[tokio::test]
async fn a_buffered_command_gives_all_it_was_and_said() {
    let api = Api::with_box();
    for (script, code, signal, stdout, stderr) in [
        ("echo out; echo err >&2; exit 7", 7, None, "out\n", "err\n"),
        ("kill -9 $$", 137, Some(9), "", ""),
        ("kill -TERM $$", 143, Some(15), "", ""),
        ("exit 137", 137, None, "", ""),
        (r"printf 'a\377b'", 0, None, "a\u{fffd}b", ""),
        ("cat", 0, None, "", ""),
        // What it leaves behind does not hold the answer up.
        ("sleep 1000 > /dev/null 2>&1 & echo done", 0, None, "done\n", ""),
    ] {
        let result = api.exec(shell(script)).await;
        assert_eq!(
            (result.exit_code, result.signal, &*result.stdout, &*result.stderr),
            (code, signal, stdout, stderr),
            "{script}"
        );
        assert!(!result.timed_out && !result.truncated, "{script}");
    }
    let input = "söme input\n".repeat(100_000);
    let request = ExecRequest { stdin: Some(input.clone()), ..shell("cat; echo end >&2") };
    let result = api.exec(request).await;
    assert!(result.stdout == input, "{} bytes came back", result.stdout.len());
    assert_eq!(result.stderr, "end\n");
    // Input that nobody reads is no error.
    let request = ExecRequest { stdin: Some(input), ..shell("exec <&-; echo unread") };
    assert_eq!(api.exec(request).await.stdout, "unread\n");
    let request = ExecRequest {
        env: [("A".to_owned(), "1 \n2".to_owned())].into(),
        cwd: Some("../tmp".to_owned()),
        user: Some("ada".to_owned()),
        ..shell("printf '%s' \"$A\"; pwd; id -un")
    };
    assert_eq!(api.exec(request).await.stdout, "1 \n2/tmp\nada\n");
    let argv = ["echo", "a", "&&", "b"].map(str::to_owned).to_vec();
    let request = ExecRequest { argv, literal: true, ..ExecRequest::default() };
    assert_eq!(api.exec(request).await.stdout, "a && b\n");
}

#[tokio::test]
async fn a_timeout_kills_the_whole_group() {
    let api = Api::with_box();
    let script = "echo begun; sleep 4343 & sleep 4343; echo never";
    let result = api.exec(ExecRequest { timeout_ms: Some(300), ..shell(script) }).await;
    assert_eq!((result.exit_code, result.signal, result.timed_out), (137, Some(9), true));
    assert_eq!(result.stdout, "begun\n");
    assert_eq!(api.shell("ps -o args | grep -c '[s]leep 4343' || true").await, "0\n");
    // One that is far away does not hurt.
    for timeout_ms in [u64::MAX / 2, u64::MAX / 4, 1 << 53] {
        let request = ExecRequest { timeout_ms: Some(timeout_ms), ..shell("echo fine") };
        let result = api.exec(request).await;
        assert_eq!((&*result.stdout, result.timed_out), ("fine\n", false), "{timeout_ms}");
    }
}

#[tokio::test]
async fn output_above_the_limit_is_dropped_and_said() {
    const LIMIT: usize = 16 << 20;
    let api = Api::with_box();
    let write = |bytes: usize| format!("head -c {bytes} /dev/zero | tr '\\0' x; echo end >&2");
    for (bytes, kept, truncated) in
        [(LIMIT - 1, LIMIT - 1, false), (LIMIT, LIMIT, false), (LIMIT + 1, LIMIT, true)]
    {
        let result = api.exec(shell(&write(bytes))).await;
        assert_eq!((result.exit_code, result.truncated), (0, truncated), "{bytes}");
        assert_eq!(result.stdout.len(), kept);
        assert!(result.stdout.bytes().all(|byte| byte == b'x'));
        assert_eq!(result.stderr, "end\n");
    }
}

#[tokio::test]
async fn events_carry_output_and_end() {
    let api = Api::with_box();
    let script = "printf 'a\\377'; printf err >&2; cat; exit 5";
    let events = api.exec_events(json!({ "argv": ["sh", "-c", script], "stdin": "input" })).await;
    let text = |kind: &str| -> Vec<u8> {
        let pieces = events.iter().filter(|event| event.data["type"] == kind);
        pieces
            .flat_map(|event| STANDARD.decode(event.data["data_base64"].as_str().unwrap()).unwrap())
            .collect()
    };
    assert_eq!((text("stdout"), text("stderr")), (b"a\xffinput".to_vec(), b"err".to_vec()));
    let last = json!({ "type": "exit", "exit_code": 5, "timed_out": false });
    assert_eq!(events.last().unwrap().data, last);
    assert_eq!(events.iter().filter(|event| event.data["type"] == "exit").count(), 1);
    for event in &events {
        let schema = json!({ "$ref": "#/components/schemas/ExecEvent" });
        api.document.conforms(&schema, &event.data, "event").unwrap();
    }
    let timed = json!({ "argv": ["sleep", "1000"], "timeout_ms": 200 });
    let last = json!({ "type": "exit", "exit_code": 137, "signal": 9, "timed_out": true });
    assert_eq!(api.exec_events(timed).await.last().unwrap().data, last);
    // A command that does not start is an ordinary refusal.
    let request = api
        .request("POST", "/v1/sandboxes/b/exec")
        .header("accept", "text/event-stream")
        .json(&json!({ "argv": ["no-such-program"] }));
    api.send(request).await.refuses(422, "exec_failed", "no-such-program");
}

/// A command lives no longer than the connection that it was started through. Connections are closed by
/// tasks of the HTTP client, which need a thread of their own while the test waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_takes_its_command_along() {
    let api = Api::with_box();
    let gone = |what: &str| {
        eventually(what, || {
            let processes = api.kiln.ok(&["exec", "b", "--", "ps", "-o", "args"]);
            (!processes.contains("sleep 4545")).then_some(())
        });
    };
    let body = json!({ "argv": ["sh", "-c", "sleep 4545 & echo begun; sleep 4545"] });
    let request = api.request("POST", "/v1/sandboxes/b/exec").json(&body);
    let mut events = api.events(request).await;
    assert_eq!(events.next().await.unwrap().data["type"], "stdout");
    drop(events);
    gone("the streamed command is gone");
    let request = api.request("POST", "/v1/sandboxes/b/exec").json(&body);
    let buffered = tokio::spawn(request.send());
    loop {
        let processes = api.shell("ps -o args").await;
        if processes.contains("sleep 4545") {
            break;
        }
    }
    buffered.abort();
    assert!(buffered.await.unwrap_err().is_cancelled());
    gone("the buffered command is gone");
}

#[tokio::test]
async fn the_end_of_the_sandbox_is_told_to_its_commands() {
    let api = Api::with_box();
    let body = json!({ "argv": ["sh", "-c", "echo begun; sleep 1000"] });
    let mut events = api.events(api.request("POST", "/v1/sandboxes/b/exec").json(&body)).await;
    assert_eq!(events.next().await.unwrap().data["type"], "stdout");
    api.client.stop_sandbox("b").await.unwrap();
    let last = events.rest().await.pop().expect("the end is told").data;
    let told = match last["type"].as_str() {
        Some("exit") => last["exit_code"] == 143 || last["exit_code"] == 137,
        Some("error") => last["problem"]["code"] == "sandbox_not_running",
        _ => false,
    };
    assert!(told, "{last}");
    let error = api.client.exec("b", &shell("true")).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::SandboxNotRunning), "{error}");
}
