//! A command's output as server-sent events.

use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use kiln_runtime::agent::ExecChunk;
use kiln_types::api::ExecEvent;
use tokio_util::sync::CancellationToken;

use crate::problem::ApiError;
use crate::sandboxes::Process;

/// A client that went away is noticed at the latest when the next of these cannot be sent.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Streams `process` to its end. When the client goes away, the stream is dropped, and the command
/// with it.
pub(super) fn events(process: Process, closing: CancellationToken) -> Response {
    let stream = stream::unfold(Some(process), move |process| {
        let closing = closing.clone();
        async move {
            let mut process = process?;
            let (event, more) = tokio::select! {
                chunk = process.next() => event(chunk),
                () = closing.cancelled() => event(Err(ApiError::closing())),
            };
            let text = serde_json::to_string(&event).map_err(axum::Error::new);
            Some((text.map(|text| Event::default().data(text)), more.then_some(process)))
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// An event, and whether another one follows.
fn event(chunk: Result<ExecChunk, ApiError>) -> (ExecEvent, bool) {
    match chunk {
        Ok(ExecChunk::Stdout(bytes)) => {
            (ExecEvent::Stdout { data_base64: STANDARD.encode(bytes) }, true)
        }
        Ok(ExecChunk::Stderr(bytes)) => {
            (ExecEvent::Stderr { data_base64: STANDARD.encode(bytes) }, true)
        }
        Ok(ExecChunk::Exit(status)) => {
            let exit = ExecEvent::Exit {
                exit_code: status.code,
                signal: status.signal,
                timed_out: status.timed_out,
            };
            (exit, false)
        }
        Err(error) => (ExecEvent::Error { problem: *error.problem }, false),
    }
}
