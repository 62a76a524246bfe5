//! Files of a running sandbox.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use kiln_runtime::agent::{Agent, AgentError};
use kiln_types::ErrorCode;
use kiln_types::api::{FileEntry, FileList, FileQuery};

use crate::app::App;
use crate::extract::{Path, Query, shorten};
use crate::problem::ApiError;
use crate::sandboxes::{Live, agent_error};

/// Read a file
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandbox}/files", tag = "files", operation_id = "read_file",
    params(
        ("sandbox" = String, Path, description = "Id or name"),
        ("path" = String, Query, description = "Path inside the sandbox; relative ones start at the working directory"),
    ),
    responses((status = 200, description = "Its content", content_type = "application/octet-stream", body = [u8])),
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
    Query(query): Query<FileQuery>,
) -> Result<Response, ApiError> {
    let call = Call::new(&app, &sandbox, &query, &[]).await?;
    let reader = call.agent.read_file(call.cwd(), &query.path).await;
    let reader = reader.map_err(|error| call.failed(&error))?;
    // No length is announced: the file may grow or shrink while it is read. An error on the way
    // breaks the connection off, so that a part is never taken for the whole.
    let content = stream::unfold(reader, |mut reader| async move {
        reader.next().await.map(|piece| (piece, reader))
    });
    let headers = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((headers, Body::from_stream(content)).into_response())
}

/// Write a file, whole or not at all; directories above it are made
#[utoipa::path(
    put, path = "/v1/sandboxes/{sandbox}/files", tag = "files", operation_id = "write_file",
    params(
        ("sandbox" = String, Path, description = "Id or name"),
        ("path" = String, Query, description = "Path inside the sandbox; relative ones start at the working directory"),
        ("mode" = Option<String>, Query, description = "Permission bits in octal, such as `644`"),
    ),
    request_body(content = [u8], content_type = "application/octet-stream", description = "The content, of any size"),
    responses((status = 204, description = "It is written")),
)]
pub(super) async fn write(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
    Query(query): Query<FileQuery>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let call = Call::new(&app, &sandbox, &query, &["mode"]).await?;
    let failed = |error| call.failed(&error);
    let writer = call.agent.write_file(call.cwd(), &query.path, call.mode).await;
    let mut writer = writer.map_err(failed)?;
    let mut body = body.into_data_stream();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| {
            ApiError::new(
                ErrorCode::InvalidRequest,
                format!("the body ended before its time, nothing was written: {error}"),
            )
        })?;
        writer.write(piece).await.map_err(failed)?;
    }
    writer.finish().await.map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a file, or with `recursive` a directory
#[utoipa::path(
    delete, path = "/v1/sandboxes/{sandbox}/files", tag = "files", operation_id = "remove_file",
    params(
        ("sandbox" = String, Path, description = "Id or name"),
        ("path" = String, Query, description = "Path inside the sandbox; relative ones start at the working directory"),
        ("recursive" = Option<bool>, Query, description = "Remove a directory with all that is in it"),
    ),
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
    Query(query): Query<FileQuery>,
) -> Result<StatusCode, ApiError> {
    let call = Call::new(&app, &sandbox, &query, &["recursive"]).await?;
    let removed = call.agent.remove(call.cwd(), &query.path, query.recursive).await;
    removed.map_err(|error| call.failed(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The entries of a directory
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandbox}/files/list", tag = "files", operation_id = "list_files",
    params(
        ("sandbox" = String, Path, description = "Id or name"),
        ("path" = String, Query, description = "Path inside the sandbox; relative ones start at the working directory"),
    ),
    responses((status = 200, description = "The entries", body = FileList)),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
    Query(query): Query<FileQuery>,
) -> Result<axum::Json<FileList>, ApiError> {
    let call = Call::new(&app, &sandbox, &query, &[]).await?;
    let entries = call.agent.list(call.cwd(), &query.path).await;
    let entries = entries.map_err(|error| call.failed(&error))?;
    Ok(axum::Json(FileList { entries: entries.into_iter().map(FileEntry::from).collect() }))
}

/// Describe a file; a symbolic link itself, not what it points to
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandbox}/files/stat", tag = "files", operation_id = "stat_file",
    params(
        ("sandbox" = String, Path, description = "Id or name"),
        ("path" = String, Query, description = "Path inside the sandbox; relative ones start at the working directory"),
    ),
    responses((status = 200, description = "The description", body = FileEntry)),
)]
pub(super) async fn stat(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
    Query(query): Query<FileQuery>,
) -> Result<axum::Json<FileEntry>, ApiError> {
    let call = Call::new(&app, &sandbox, &query, &[]).await?;
    let entry = call.agent.stat(call.cwd(), &query.path).await;
    let entry = entry.map_err(|error| call.failed(&error))?;
    Ok(axum::Json(entry.into()))
}

/// Make a directory and those above it; one that is there is left alone
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandbox}/files/mkdir", tag = "files", operation_id = "make_directory",
    params(
        ("sandbox" = String, Path, description = "Id or name"),
        ("path" = String, Query, description = "Path inside the sandbox; relative ones start at the working directory"),
        ("mode" = Option<String>, Query, description = "Permission bits in octal, such as `644`"),
    ),
    responses((status = 204, description = "It is there")),
)]
pub(super) async fn mkdir(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
    Query(query): Query<FileQuery>,
) -> Result<StatusCode, ApiError> {
    let call = Call::new(&app, &sandbox, &query, &["mode"]).await?;
    let made = call.agent.mkdir(call.cwd(), &query.path, call.mode).await;
    made.map_err(|error| call.failed(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// A checked call.
struct Call {
    live: Arc<Live>,
    agent: Agent,
    mode: Option<u32>,
}

impl Call {
    /// `takes` names the parameters beside `path` that the route has a use for; others are refused,
    /// since ignoring them would be silent.
    async fn new(
        app: &App,
        sandbox: &str,
        query: &FileQuery,
        takes: &[&str],
    ) -> Result<Self, ApiError> {
        let invalid = |detail: String| Err(ApiError::new(ErrorCode::InvalidRequest, detail));
        if query.path.is_empty() || query.path.contains('\0') {
            return invalid("`path` is empty or has a NUL character".to_owned());
        }
        for (name, given) in [("mode", query.mode.is_some()), ("recursive", query.recursive)] {
            if given && !takes.contains(&name) {
                return invalid(format!("`{name}` is not a parameter of this route"));
            }
        }
        let mode = query.mode.as_deref().map(parse_mode).transpose()?;
        let live = app.sandboxes.running_sandbox(sandbox).await?;
        Ok(Self { agent: live.agent().await, live, mode })
    }

    fn failed(&self, error: &AgentError) -> ApiError {
        agent_error(&self.live, error)
    }

    fn cwd(&self) -> &str {
        self.live.process.cwd()
    }
}

fn parse_mode(text: &str) -> Result<u32, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| digits && mode <= 0o7777);
    mode.ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidRequest,
            format!("`mode` is `{}`; it must be octal, at most 7777, such as 644", shorten(text)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        for (text, mode) in [("644", 0o644), ("0755", 0o755), ("4755", 0o4755), ("0", 0)] {
            assert_eq!(parse_mode(text).unwrap(), mode, "{text}");
        }
        for text in ["", "8", "rw", "-1", "+7", "10000", "0o644"] {
            assert!(parse_mode(text).is_err(), "{text}");
        }
    }
}
