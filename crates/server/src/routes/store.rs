//! The store as a whole.

use std::sync::Arc;

use axum::extract::State;
use kiln_types::api::{FsckReport, FsckRequest, GcReport, GcRequest, StoreUsage};

use crate::app::App;
use crate::extract::Json;
use crate::problem::ApiError;
use crate::upkeep;

/// Read everything that is stored and hold it against what it must be
#[utoipa::path(
    post, path = "/v1/store/fsck", tag = "store", operation_id = "check_store", request_body = FsckRequest,
    responses((status = 200, description = "What was looked at and what is wrong; damage is no error of the request", body = FsckReport)),
)]
pub(super) async fn fsck(
    State(app): State<Arc<App>>,
    Json(request): Json<FsckRequest>,
) -> Result<axum::Json<FsckReport>, ApiError> {
    let work = Arc::clone(&app);
    // Not cut off when the client goes away: a repair is worth more whole.
    let work = async move { upkeep::fsck(&work, request).await };
    if request.repair {
        return app.sandboxes.detached(work).await.map(axum::Json);
    }
    work.await.map(axum::Json)
}

/// Remove what nothing needs, or only say what that is
#[utoipa::path(
    post, path = "/v1/store/gc", tag = "store", operation_id = "collect_garbage", request_body = GcRequest,
    responses((status = 200, description = "What was removed, or would be", body = GcReport)),
)]
pub(super) async fn gc(
    State(app): State<Arc<App>>,
    Json(request): Json<GcRequest>,
) -> Result<axum::Json<GcReport>, ApiError> {
    let work = Arc::clone(&app);
    let collect = async move {
        let collection = upkeep::gc(&work, request);
        // What would be removed is only looked at.
        if request.dry_run { collection.await } else { work.reserve.lend_first(collection).await }
    };
    // Not cut off when the client goes away: rows have gone whose files have not.
    app.sandboxes.detached(collect).await.map(axum::Json)
}

/// What takes how much room
#[utoipa::path(
    get, path = "/v1/store/usage", tag = "store", operation_id = "get_store_usage",
    responses((status = 200, description = "Bytes on the disk", body = StoreUsage)),
)]
pub(super) async fn usage(State(app): State<Arc<App>>) -> Result<axum::Json<StoreUsage>, ApiError> {
    upkeep::usage(&app).await.map(axum::Json)
}
