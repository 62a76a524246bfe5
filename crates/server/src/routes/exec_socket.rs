//! A command over a WebSocket: input, terminal and signals in, output and the end out.
//!
//! Binary messages carry one channel byte and bytes; text messages are JSON. The client's first
//! message is `start`. The server sends output in the order in which it gets it, then `exit` or
//! `error`, then closes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use kiln_runtime::agent::{ExecChunk, ExecControl, ExecInput};
use kiln_types::api::{
    EXEC_CHANNEL_STDERR, EXEC_CHANNEL_STDIN, EXEC_CHANNEL_STDOUT, ExecClientMessage, ExecRequest,
    ExecServerMessage,
};
use kiln_types::{ErrorCode, Problem};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::extract::{self, Path};
use crate::problem::ApiError;
use crate::sandboxes::Process;

/// The largest message of a client.
const MAX_MESSAGE: usize = 16 << 20;
/// How long a client may take to say what to run.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// A client that is gone without a word is noticed by these.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// How long a client may take to close after the end.
const LINGER: Duration = Duration::from_secs(10);
/// Input that the command has not read yet, in bytes. Beyond it the connection is not read.
const INPUT_WINDOW: usize = 4 << 20;

/// Run a command with input, terminal and signals, over a WebSocket
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandbox}/exec/stream", tag = "commands", operation_id = "exec_stream",
    description = "Binary messages: one channel byte (0 standard input, 1 standard output, 2 standard error) and bytes. Text messages: `ExecClientMessage` from the client, of which the first is `start`, and `ExecServerMessage` from the server. When the connection ends before the command, the command is killed with all that it started.",
    params(("sandbox" = String, Path, description = "Id or name")),
    responses(
        (status = 101, description = "The connection becomes a WebSocket", content(
            (ExecClientMessage = "application/vnd.kiln.exec-client+json"),
            (ExecServerMessage = "application/vnd.kiln.exec-server+json"),
        )),
    ),
)]
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| {
        ApiError::new(
            ErrorCode::InvalidRequest,
            format!("the request does not begin a WebSocket: {}", rejection.body_text()),
        )
        .hint("to run a command by plain HTTP, `POST` to `…/exec`")
    })?;
    // A sandbox that is not there is told before the upgrade, by an ordinary answer.
    app.sandboxes.running_sandbox(&sandbox).await?;
    let sockets = app.sockets.clone();
    Ok(upgrade.max_message_size(MAX_MESSAGE).on_upgrade(move |socket| {
        sockets.track_future(async move { serve(&app, &sandbox, socket).await })
    }))
}

async fn serve(app: &App, sandbox: &str, socket: WebSocket) {
    let (mut sink, mut source) = socket.split();
    let last = match begin(app, sandbox, &mut source).await {
        Ok(process) => run(process, &mut sink, &mut source, &app.closing).await,
        Err(None) => return,
        Err(Some(error)) => Some(ExecServerMessage::Error { problem: *error.problem }),
    };
    let Some(last) = last else { return };
    let text = serde_json::to_string(&last).expect("the message has a JSON form");
    let close = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    // The client may be gone; there is nobody to tell then.
    if sink.send(Message::text(text)).await.is_ok() {
        let _gone = sink.send(Message::Close(Some(close))).await;
        linger(&mut source).await;
    }
}

/// Reads what the client still sends until it closes. If its bytes were left unread, the kernel would
/// throw away what it has not read yet, and that is how its command ended.
async fn linger(source: &mut SplitStream<WebSocket>) {
    let rest = async { while let Some(Ok(_)) = source.next().await {} };
    let _gone = tokio::time::timeout(LINGER, rest).await;
}

/// Waits for `start` and starts the command; `Err(None)` when the client has gone.
async fn begin(
    app: &App,
    sandbox: &str,
    source: &mut SplitStream<WebSocket>,
) -> Result<Process, Option<ApiError>> {
    let invalid = |detail: &str| Some(ApiError::new(ErrorCode::InvalidRequest, detail));
    let request = loop {
        let message = tokio::select! {
            message = tokio::time::timeout(START_DEADLINE, source.next()) => message,
            () = app.closing.cancelled() => return Err(Some(ApiError::closing())),
        };
        match message {
            Err(_) => return Err(invalid("the client did not send `start` in time")),
            Ok(None | Some(Err(_) | Ok(Message::Close(_)))) => return Err(None),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(Some(Ok(Message::Binary(_)))) => {
                return Err(invalid("the first message is binary; it must be `start`"));
            }
            Ok(Some(Ok(Message::Text(text)))) => match extract::parse(text.as_bytes()) {
                Ok(ExecClientMessage::Start { request }) => break request,
                Ok(_) => return Err(invalid("the first message is not `start`")),
                Err(error) => return Err(Some(error)),
            },
        }
    };
    start(app, sandbox, &request).await.map_err(Some)
}

async fn start(app: &App, sandbox: &str, request: &ExecRequest) -> Result<Process, ApiError> {
    if request.stdin.is_some() {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "`stdin` is set; on a WebSocket standard input is sent in binary messages",
        ));
    }
    app.sandboxes.exec(sandbox, request).await
}

/// Carries everything until the command or the connection ends. `None` when the client has gone.
async fn run(
    mut process: Process,
    sink: &mut SplitSink<WebSocket, Message>,
    source: &mut SplitStream<WebSocket>,
    closing_down: &CancellationToken,
) -> Option<ExecServerMessage> {
    let control = process.control();
    let input = process.take_input();
    tokio::select! {
        last = send_output(&mut process, sink) => last,
        problem = receive(source, input, &control) => {
            problem.map(|problem| ExecServerMessage::Error { problem })
        }
        () = closing_down.cancelled() => {
            Some(ExecServerMessage::Error { problem: *ApiError::closing().problem })
        }
    }
}

async fn send_output(
    process: &mut Process,
    sink: &mut SplitSink<WebSocket, Message>,
) -> Option<ExecServerMessage> {
    let mut pings = tokio::time::interval(PING_INTERVAL);
    loop {
        let message = tokio::select! {
            chunk = process.next() => match chunk {
                Ok(ExecChunk::Stdout(bytes)) => on_channel(EXEC_CHANNEL_STDOUT, &bytes),
                Ok(ExecChunk::Stderr(bytes)) => on_channel(EXEC_CHANNEL_STDERR, &bytes),
                Ok(ExecChunk::Exit(status)) => {
                    return Some(ExecServerMessage::Exit {
                        exit_code: status.code,
                        signal: status.signal,
                        timed_out: status.timed_out,
                    });
                }
                Err(error) => return Some(ExecServerMessage::Error { problem: *error.problem }),
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        sink.send(message).await.ok()?;
    }
}

fn on_channel(channel: u8, bytes: &Bytes) -> Message {
    let mut message = BytesMut::with_capacity(bytes.len() + 1);
    message.put_u8(channel);
    message.extend_from_slice(bytes);
    Message::Binary(message.freeze())
}

/// Takes what the client sends. Ends when the client goes (`None`) or sends what it must not.
///
/// Input waits in a queue of [`INPUT_WINDOW`] bytes, so that signals get past a command that reads
/// slowly.
async fn receive(
    source: &mut SplitStream<WebSocket>,
    input: Option<ExecInput>,
    control: &ExecControl,
) -> Option<Problem> {
    let window = Arc::new(Semaphore::new(INPUT_WINDOW));
    let (queue, waiting) = mpsc::unbounded_channel();
    let mut queue = Some(queue);
    let feeding = tokio::spawn(feed(input, waiting, Arc::clone(&window)));
    let problem = loop {
        let message = match source.next().await {
            None | Some(Err(_) | Ok(Message::Close(_))) => break None,
            Some(Ok(message)) => message,
        };
        let invalid = |detail: String| Some(Problem::new(ErrorCode::InvalidRequest, detail));
        match message {
            Message::Binary(bytes) if bytes.first() == Some(&EXEC_CHANNEL_STDIN) => {
                let Some(queue) = &queue else {
                    break invalid("input was sent after `stdin_eof`".to_owned());
                };
                let bytes = bytes.slice(1..);
                let size = bytes.len().min(INPUT_WINDOW) as u32;
                if let Ok(permit) = window.acquire_many(size).await {
                    permit.forget();
                    // A command that has closed its input does not want it; that is no error.
                    let _unwanted = queue.send((bytes, size));
                }
            }
            Message::Binary(bytes) => {
                break invalid(format!("a binary message has channel {:?}, not 0", bytes.first()));
            }
            Message::Text(text) => match extract::parse(text.as_bytes()) {
                Ok(ExecClientMessage::StdinEof) => queue = None,
                // After its end the command takes neither; its end is on the way to the client.
                Ok(ExecClientMessage::Resize { size }) => {
                    let _ended = control.resize(size.rows, size.cols);
                }
                Ok(ExecClientMessage::Signal { signal }) if (1..=64).contains(&signal) => {
                    let _ended = control.signal(signal);
                }
                Ok(ExecClientMessage::Signal { signal }) => {
                    break invalid(format!("`signal` is {signal}; it must be between 1 and 64"));
                }
                Ok(ExecClientMessage::Start { .. }) => {
                    break invalid("`start` was sent a second time".to_owned());
                }
                Err(error) => break Some(*error.problem),
            },
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
        }
    };
    feeding.abort();
    problem
}

/// Hands queued input to the command, then ends its input.
async fn feed(
    input: Option<ExecInput>,
    mut waiting: mpsc::UnboundedReceiver<(Bytes, u32)>,
    window: Arc<Semaphore>,
) {
    let Some(mut input) = input else { return };
    while let Some((bytes, size)) = waiting.recv().await {
        if input.write(bytes).await.is_err() {
            // What still comes is thrown away, and must not wait for room.
            window.close();
            return;
        }
        window.add_permits(size as usize);
    }
    let _an_ended_process_needs_no_end = input.close();
}
