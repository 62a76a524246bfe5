//! Commands by `POST`: the whole result at the end, or a stream of events.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use kiln_types::ErrorCode;
use kiln_types::api::{ExecEvent, ExecRequest, ExecResult};

use super::exec_stream;
use crate::app::App;
use crate::extract::{Json, Path};
use crate::problem::ApiError;

/// How much of each output a buffered result holds.
const MAX_OUTPUT: usize = 16 << 20;

/// Run a command; with `Accept: text/event-stream` its output is streamed
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandbox}/exec", tag = "commands", operation_id = "exec",
    params(("sandbox" = String, Path, description = "Id or name")),
    request_body = ExecRequest,
    responses(
        (status = 200, description = "How it ended, whatever its exit code is; or, as server-sent events, its output and its end", content(
            (ExecResult = "application/json"),
            (ExecEvent = "text/event-stream"),
        )),
    ),
)]
pub(super) async fn run(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
    headers: HeaderMap,
    Json(mut request): Json<ExecRequest>,
) -> Result<Response, ApiError> {
    if request.pty.is_some() {
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "`pty` is set, and a terminal needs a connection in both directions",
        )
        .hint("use the WebSocket at `…/exec/stream`"));
    }
    let stdin = request.stdin.take();
    let mut process = app.sandboxes.exec(&sandbox, &request).await?;
    process.feed(stdin);
    if wants_events(&headers) {
        return Ok(exec_stream::events(process, app.closing.clone()));
    }
    let collected = tokio::select! {
        collected = process.collect(MAX_OUTPUT) => collected?,
        () = app.cutoff.cancelled() => return Err(ApiError::closing()),
    };
    Ok(axum::Json(ExecResult {
        exit_code: collected.status.code,
        signal: collected.status.signal,
        timed_out: collected.status.timed_out,
        stdout: text(collected.stdout),
        stderr: text(collected.stderr),
        truncated: collected.truncated,
    })
    .into_response())
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn wants_events(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value.split(',').any(|range| {
                let media_type = range.split(';').next().unwrap_or_default().trim();
                media_type.eq_ignore_ascii_case("text/event-stream")
            })
        })
    })
}
