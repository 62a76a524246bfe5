//! Sandboxes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use kiln_types::api::{CreateSandbox, Page, SandboxInfo};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::extract::{Json, Path, Query};
use crate::page::PageQuery;
use crate::problem::ApiError;

/// Make and start a sandbox; answers when its agent does
#[utoipa::path(
    post, path = "/v1/sandboxes", tag = "sandboxes", operation_id = "create_sandbox", request_body = CreateSandbox,
    responses((status = 201, description = "The sandbox runs", body = SandboxInfo)),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Json(request): Json<CreateSandbox>,
) -> Result<Response, ApiError> {
    let sandbox = app.sandboxes.create(request).await?;
    let location = format!("/v1/sandboxes/{}", sandbox.id);
    let headers = AppendHeaders([(header::LOCATION, location)]);
    Ok((StatusCode::CREATED, headers, axum::Json(sandbox)).into_response())
}

/// List sandboxes, newest first
#[utoipa::path(
    get, path = "/v1/sandboxes", tag = "sandboxes", operation_id = "list_sandboxes", params(PageQuery),
    responses((status = 200, description = "One page", body = Page<SandboxInfo>)),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<SandboxInfo>>, ApiError> {
    app.sandboxes.list(&query).await.map(axum::Json)
}

/// One sandbox
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandbox}", tag = "sandboxes", operation_id = "get_sandbox",
    params(("sandbox" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The sandbox", body = SandboxInfo)),
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
) -> Result<axum::Json<SandboxInfo>, ApiError> {
    app.sandboxes.get(&sandbox).await.map(axum::Json)
}

/// How to remove a sandbox.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveQuery {
    /// Also when it is running.
    #[serde(default)]
    force: bool,
}

/// Remove a sandbox and its disk
#[utoipa::path(
    delete, path = "/v1/sandboxes/{sandbox}", tag = "sandboxes", operation_id = "remove_sandbox",
    params(("sandbox" = String, Path, description = "Id or name"), RemoveQuery),
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, ApiError> {
    app.reserve.lend(|| app.sandboxes.remove(&sandbox, query.force)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Start a stopped sandbox on its disk; one that runs is left alone
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandbox}/start", tag = "sandboxes", operation_id = "start_sandbox",
    params(("sandbox" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The sandbox runs", body = SandboxInfo)),
)]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
) -> Result<axum::Json<SandboxInfo>, ApiError> {
    app.sandboxes.start(&sandbox).await.map(axum::Json)
}

/// Stop a running sandbox, its disk is kept; one that does not run is left alone
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandbox}/stop", tag = "sandboxes", operation_id = "stop_sandbox",
    params(("sandbox" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The sandbox is stopped", body = SandboxInfo)),
)]
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Path(sandbox): Path<String>,
) -> Result<axum::Json<SandboxInfo>, ApiError> {
    app.reserve.lend(|| app.sandboxes.stop(&sandbox)).await.map(axum::Json)
}
