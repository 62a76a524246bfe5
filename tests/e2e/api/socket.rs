//! Commands over a WebSocket, through the typed client and by raw messages.

use futures_util::{SinkExt as _, StreamExt as _};
use kiln_client::{ClientError, ExecOutput, ExecSession};
use kiln_types::ErrorCode;
use kiln_types::api::{ExecRequest, PtySize};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::caller::Api;
use crate::daemon::eventually;

/// A plain request that asks for a WebSocket.
pub(crate) fn upgrade(api: &Api, sandbox: &str) -> RequestBuilder {
    with_upgrade(api.request("GET", &format!("/v1/sandboxes/{sandbox}/exec/stream")))
}

pub(crate) fn with_upgrade(request: RequestBuilder) -> RequestBuilder {
    request
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

fn shell(script: &str) -> ExecRequest {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    ExecRequest { argv, ..ExecRequest::default() }
}

fn on_terminal(script: &str, rows: u16, cols: u16) -> ExecRequest {
    ExecRequest { pty: Some(PtySize { rows, cols }), ..shell(script) }
}

/// What came until the end.
#[derive(Debug, PartialEq)]
struct End {
    stdout: String,
    stderr: String,
    code: i32,
    timed_out: bool,
}

impl Api {
    async fn stream(&self, request: ExecRequest) -> ExecSession {
        self.client.exec_stream("b", request).await.unwrap()
    }
}

/// Reads standard output until `wanted` has come; gives all of it.
async fn until(session: &mut ExecSession, wanted: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(wanted) {
        match session.output.next().await.unwrap() {
            ExecOutput::Stdout(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("no {wanted:?} in {seen:?}, but {other:?}"),
        }
    }
    seen
}

async fn end(mut session: ExecSession) -> End {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match session.output.next().await.unwrap() {
            ExecOutput::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            ExecOutput::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            ExecOutput::Exit { code, timed_out } => {
                let [stdout, stderr] = [stdout, stderr].map(|all| String::from_utf8(all).unwrap());
                return End { stdout, stderr, code, timed_out };
            }
        }
    }
}

#[tokio::test]
async fn input_streams_and_outputs_are_apart() {
    let api = Api::with_box();
    let script = "while read line; do echo \"out $line\"; echo \"err $line\" >&2; done; exit 4";
    let mut session = api.stream(shell(script)).await;
    for word in ["one", "two"] {
        session.input.write(format!("{word}\n").as_bytes()).await.unwrap();
        let mut outputs = [false, false];
        while outputs != [true, true] {
            match session.output.next().await.unwrap() {
                ExecOutput::Stdout(bytes) => outputs[0] = bytes == format!("out {word}\n"),
                ExecOutput::Stderr(bytes) => outputs[1] = bytes == format!("err {word}\n"),
                end @ ExecOutput::Exit { .. } => panic!("{end:?}"),
            }
        }
    }
    session.input.close().await.unwrap();
    let empty = End { stdout: String::new(), stderr: String::new(), code: 4, timed_out: false };
    assert_eq!(end(session).await, empty);
    // Much in both directions at once.
    let ExecSession { mut input, mut output } = api.stream(shell("cat")).await;
    let total = 200 * 65_536;
    let writing = async {
        for _ in 0..200 {
            input.write(&vec![b'x'; 65_536]).await.unwrap();
        }
        input.close().await.unwrap();
    };
    let reading = async {
        let mut count = 0;
        loop {
            match output.next().await.unwrap() {
                ExecOutput::Stdout(bytes) => count += bytes.len(),
                ExecOutput::Exit { code: 0, .. } => return count,
                other => panic!("{other:?}"),
            }
        }
    };
    let ((), count) = tokio::join!(writing, reading);
    assert_eq!(count, total);
    let timed = ExecRequest { timeout_ms: Some(200), ..shell("sleep 1000") };
    let ended = end(api.stream(timed).await).await;
    assert_eq!((ended.code, ended.timed_out), (137, true));
}

#[tokio::test]
async fn a_terminal_has_the_size_that_it_is_told() {
    let api = Api::with_box();
    let script = "tty; stty size; trap 'stty size' WINCH; read a; stty size; test -t 2 && exit 9";
    let mut session = api.stream(on_terminal(script, 33, 101)).await;
    let seen = until(&mut session, "33 101\r\n").await;
    assert!(seen.starts_with("/dev/pts/"), "{seen:?}");
    session.input.resize(PtySize { rows: 50, cols: 120 }).await.unwrap();
    session.input.write(b"x\n").await.unwrap();
    until(&mut session, "50 120\r\n").await;
    assert_eq!(end(session).await.code, 9);
    // The edges of what a size can be.
    for (rows, cols) in [(2, 2), (2, 29_999), (29_999, 2)] {
        let ended = end(api.stream(on_terminal("stty size; exit 0", rows, cols)).await).await;
        assert_eq!((ended.code, ended.stdout.trim()), (0, &*format!("{rows} {cols}")));
    }
    // Control characters go to the terminal's foreground: an interrupt and an end of file.
    let mut session =
        api.stream(on_terminal("sleep 1000; echo after $?; cat; echo eof", 9, 9)).await;
    eventually("the sleep runs", || {
        api.kiln.ok(&["exec", "b", "--", "ps", "-o", "args"]).contains("sleep 1000").then_some(())
    });
    session.input.write(b"\x03").await.unwrap();
    let ended = end(session).await;
    assert_eq!(ended.code, 130, "{ended:?}");
    let mut session = api.stream(on_terminal("cat; echo eof", 9, 9)).await;
    session.input.write(b"line\n\x04").await.unwrap();
    let ended = end(session).await;
    assert_eq!((&*ended.stdout, ended.code), ("line\r\nline\r\neof\r\n", 0));
}

#[tokio::test]
async fn signals_reach_the_process_group() {
    let api = Api::with_box();
    let script = "trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.05; done";
    let mut session = api.stream(shell(script)).await;
    until(&mut session, "ready").await;
    session.input.signal(10).await.unwrap();
    let ended = end(session).await;
    assert_eq!((&*ended.stdout, ended.code), ("got\n", 3));
    for (signal, code) in [(15, 143), (9, 137), (64, 192)] {
        let mut session = api.stream(shell("echo ready; sleep 1000 & wait")).await;
        until(&mut session, "ready").await;
        session.input.signal(signal).await.unwrap();
        assert_eq!(end(session).await.code, code);
    }
    for signal in [0, -1, 65, i32::MAX] {
        let mut session = api.stream(shell("echo ready; sleep 1000")).await;
        until(&mut session, "ready").await;
        session.input.signal(signal).await.unwrap();
        let error = session.output.next().await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::InvalidRequest), "{error}");
        assert!(error.to_string().contains(&format!("`signal` is {signal}")), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_kills_the_process_group() {
    let api = Api::with_box();
    // One child ignores what can be ignored, one is on its own; both are of the command's group.
    let script = "(trap '' HUP INT TERM; sleep 4444; sleep 4444) & sleep 4444 & echo begun; wait";
    for request in [shell(script), on_terminal(script, 24, 80)] {
        let mut session = api.stream(request).await;
        until(&mut session, "begun").await;
        eventually("both run", || {
            let processes = api.kiln.ok(&["exec", "b", "--", "ps", "-o", "args"]);
            (processes.lines().filter(|line| *line == "sleep 4444").count() == 2).then_some(())
        });
        drop(session);
        eventually("none is left", || {
            let processes = api.kiln.ok(&["exec", "b", "--", "ps", "-o", "args"]);
            (!processes.contains("sleep 4444")).then_some(())
        });
    }
}

type Raw = WebSocketStream<TcpStream>;

async fn raw(api: &Api) -> Raw {
    let address = api.kiln.url().strip_prefix("http://").unwrap();
    let url = format!("ws://{address}/v1/sandboxes/b/exec/stream");
    let mut request = url.into_client_request().unwrap();
    let value = format!("Bearer {}", api.key).parse().unwrap();
    request.headers_mut().insert("authorization", value);
    client_async(request, TcpStream::connect(address).await.unwrap()).await.unwrap().0
}

/// The last text message, and that the server then closes.
async fn last(socket: &mut Raw) -> Value {
    let mut last = Value::Null;
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Text(text) => {
                assert_eq!(last, Value::Null, "two last messages");
                last = serde_json::from_str(&text).unwrap();
            }
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1000);
                return last;
            }
            _ => {}
        }
    }
    panic!("the connection broke off after {last}");
}

#[tokio::test]
async fn wrong_messages_are_refused() {
    let api = Api::with_box();
    let start = |request: Value| json!({ "type": "start", "request": request }).to_string();
    let text = |text: String| Message::text(text);
    let run = start(json!({ "argv": ["sleep", "1000"] }));
    let ready = || vec![text(run.clone())];
    let after = |message: Message| [ready(), vec![message]].concat();
    for (messages, code, named) in [
        (vec![text("nonsense".into())], "invalid_request", "JSON"),
        (vec![text(String::new())], "invalid_request", "empty"),
        (vec![text(json!({ "type": "begin" }).to_string())], "invalid_request", "begin"),
        (vec![text(json!({ "type": "stdin_eof" }).to_string())], "invalid_request", "start"),
        (vec![text(json!({ "type": "start" }).to_string())], "invalid_request", "request"),
        (vec![Message::binary(vec![0, b'x'])], "invalid_request", "start"),
        (vec![text(start(json!({ "argv": [] })))], "invalid_request", "argv"),
        (vec![text(start(json!({ "argv": ["x"], "colour": 1 })))], "invalid_request", "colour"),
        (vec![text(start(json!({ "argv": ["x"], "stdin": "" })))], "invalid_request", "stdin"),
        (vec![text(start(json!({ "argv": ["a", "|", "b"] })))], "shell_operator_in_argv", "|"),
        (vec![text(start(json!({ "argv": ["no-such"] })))], "exec_failed", "no-such"),
        (
            vec![text(
                json!({ "type": "start", "request": { "argv": ["x"] }, "colour": 1 }).to_string(),
            )],
            "invalid_request",
            "colour",
        ),
        (after(text(run.clone())), "invalid_request", "second"),
        (after(text("{".into())), "invalid_request", "JSON"),
        (after(Message::binary(vec![])), "invalid_request", "channel"),
        (after(Message::binary(vec![1, b'x'])), "invalid_request", "channel"),
        (
            after(text(
                json!({ "type": "resize", "size": { "rows": 70_000, "cols": 1 } }).to_string(),
            )),
            "invalid_request",
            "70000",
        ),
        (
            after(text(json!({ "type": "resize", "rows": 1, "cols": 1 }).to_string())),
            "invalid_request",
            "size",
        ),
    ] {
        let mut socket = raw(&api).await;
        for message in &messages {
            socket.send(message.clone()).await.unwrap();
        }
        let last = last(&mut socket).await;
        let problem = &last["problem"];
        assert_eq!(
            (&last["type"], &problem["code"]),
            (&"error".into(), &code.into()),
            "{messages:?}: {last}"
        );
        assert!(problem["detail"].as_str().unwrap().contains(named), "{messages:?}: {last}");
        let schema = json!({ "$ref": "#/components/schemas/ExecServerMessage" });
        api.document.conforms(&schema, &last, "message").unwrap();
    }
    assert_eq!(api.shell("ps -o args | grep -c '[s]leep 1000' || true").await, "0\n");
    // Input for a command that has no use for it, and a size for what is no terminal, are fine.
    let mut socket = raw(&api).await;
    socket
        .send(text(start(json!({ "argv": ["sh", "-c", "exec <&-; sleep 0.2; exit 6"] }))))
        .await
        .unwrap();
    socket.send(Message::binary([&[0][..], &vec![b'x'; 100_000]].concat())).await.unwrap();
    let size = json!({ "type": "resize", "size": { "rows": 1, "cols": 1 } });
    socket.send(text(size.to_string())).await.unwrap();
    assert_eq!(last(&mut socket).await["exit_code"], 6);
}

/// What is wrong before the connection is a WebSocket is an ordinary answer, also for the client.
#[tokio::test]
async fn refused_upgrades_carry_their_problem() {
    let api = Api::with_box();
    let error = api.client.exec_stream("nobody", shell("true")).await.unwrap_err();
    let ClientError::Problem(problem) = error else { panic!("{error:?}") };
    assert_eq!(problem.code, ErrorCode::SandboxNotFound);
    api.send(upgrade(&api, "nobody")).await.refuses(404, "sandbox_not_found", "nobody");
    let path = "/v1/sandboxes/b/exec/stream";
    api.ask("GET", path).await.refuses(400, "invalid_request", "WebSocket");
    let (client, request) = upgrade(&api, "b").build_split();
    let mut old = request.unwrap();
    old.headers_mut().insert("sec-websocket-version", 8.into());
    let old = RequestBuilder::from_parts(client, old);
    api.send(old).await.refuses(400, "invalid_request", "WebSocket");
    api.client.stop_sandbox("b").await.unwrap();
    api.send(upgrade(&api, "b")).await.refuses(409, "sandbox_not_running", "sbx_");
}
