//! Named snapshots.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use kiln_types::api::{CreateSnapshot, Page, SnapshotInfo};

use crate::app::App;
use crate::extract::{Json, Path, Query};
use crate::page::PageQuery;
use crate::problem::ApiError;

/// Save a sandbox's disk as a named image; the sandbox may be running or stopped
#[utoipa::path(
    post, path = "/v1/snapshots", tag = "snapshots", operation_id = "create_snapshot", request_body = CreateSnapshot,
    responses((status = 201, description = "The snapshot is usable", body = SnapshotInfo)),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Json(request): Json<CreateSnapshot>,
) -> Result<Response, ApiError> {
    let snapshot = app.snapshots.create(request).await?;
    let location = format!("/v1/snapshots/{}", snapshot.id);
    let headers = AppendHeaders([(header::LOCATION, location)]);
    Ok((StatusCode::CREATED, headers, axum::Json(snapshot)).into_response())
}

/// List snapshots, newest first
#[utoipa::path(
    get, path = "/v1/snapshots", tag = "snapshots", operation_id = "list_snapshots", params(PageQuery),
    responses((status = 200, description = "One page", body = Page<SnapshotInfo>)),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<SnapshotInfo>>, ApiError> {
    app.snapshots.list(&query).await.map(axum::Json)
}

/// One snapshot
#[utoipa::path(
    get, path = "/v1/snapshots/{snapshot}", tag = "snapshots", operation_id = "get_snapshot",
    params(("snapshot" = String, Path, description = "Id or name; `/` as `%2F`")),
    responses((status = 200, description = "The snapshot", body = SnapshotInfo)),
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(snapshot): Path<String>,
) -> Result<axum::Json<SnapshotInfo>, ApiError> {
    app.snapshots.get(&snapshot).await.map(axum::Json)
}

/// Remove a snapshot; sandboxes made from it are not touched
#[utoipa::path(
    delete, path = "/v1/snapshots/{snapshot}", tag = "snapshots", operation_id = "remove_snapshot",
    params(("snapshot" = String, Path, description = "Id or name; `/` as `%2F`")),
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(snapshot): Path<String>,
) -> Result<StatusCode, ApiError> {
    app.reserve.lend(|| app.snapshots.remove(&snapshot)).await?;
    Ok(StatusCode::NO_CONTENT)
}
