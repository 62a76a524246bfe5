//! Images.

use std::sync::Arc;

use axum::extract::State;
use futures_util::TryStreamExt;
use futures_util::stream::{self, StreamExt};
use kiln_images::ImageStore;
use kiln_metadata::ImageRecord;
use kiln_types::api::{ImageInfo, Page, PullRequest, RemovedImage};
use kiln_types::{ErrorCode, ImageName, Reference};

use crate::app::App;
use crate::extract::{Json, Path, Query, shorten};
use crate::page::{PageQuery, page};
use crate::problem::ApiError;

/// How many images of a page are read at once.
const READ_AT_ONCE: usize = 8;

/// List images, newest first
#[utoipa::path(
    get, path = "/v1/images", tag = "images", operation_id = "list_images", params(PageQuery),
    responses((status = 200, description = "One page", body = Page<ImageInfo>)),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<ImageInfo>>, ApiError> {
    let (limit, cursor) = (query.limit()?, query.cursor::<u64>()?);
    let rows = app.images.metadata().list_images_below(cursor, limit + 1).await?;
    let rows = page(rows, limit, |(place, _)| place.to_string());
    let found: Vec<Option<ImageInfo>> = stream::iter(rows.items)
        .map(|(_, row)| {
            let images = Arc::clone(&app.images);
            async move { info(&images, &row).await }
        })
        .buffered(READ_AT_ONCE)
        .try_collect()
        .await?;
    // One that was removed since its row was read is not in the list any more.
    Ok(axum::Json(Page { items: found.into_iter().flatten().collect(), next: rows.next }))
}

/// What there is to say of an image; `None` when it was removed before all of that was read.
async fn info(images: &ImageStore, row: &ImageRecord) -> Result<Option<ImageInfo>, ApiError> {
    match images.info(row).await {
        Ok(info) => Ok(Some(info)),
        Err(error) => match images.metadata().get_image(&row.digest).await? {
            None => Ok(None),
            Some(_) => Err(error.into()),
        },
    }
}

/// One image
#[utoipa::path(
    get, path = "/v1/images/{name}", tag = "images", operation_id = "get_image",
    params(("name" = String, Path, description = "Name with or without tag, digest, or at least twelve hex digits of one; `/` as `%2F`")),
    responses((status = 200, description = "The image", body = ImageInfo)),
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<axum::Json<ImageInfo>, ApiError> {
    let image = app.images.resolve(&name).await?;
    let found = info(&app.images, &image).await?;
    found.map(axum::Json).ok_or_else(|| {
        ApiError::new(
            ErrorCode::ImageNotFound,
            format!("image `{}` was removed just now", shorten(&name)),
        )
        .hint("`kiln images` lists the images there are")
    })
}

/// Remove a name, and with its last name the image
#[utoipa::path(
    delete, path = "/v1/images/{name}", tag = "images", operation_id = "remove_image",
    params(("name" = String, Path, description = "Name with or without tag, digest, or at least twelve hex digits of one; `/` as `%2F`")),
    responses((status = 200, description = "What was removed", body = RemovedImage)),
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<axum::Json<RemovedImage>, ApiError> {
    app.remove_image(name).await.map(axum::Json)
}

/// Fetch an image from its registry; answers when it is in the store
#[utoipa::path(
    post, path = "/v1/images/pull", tag = "images", operation_id = "pull_image", request_body = PullRequest,
    responses((status = 200, description = "The image", body = ImageInfo)),
)]
pub(super) async fn pull(
    State(app): State<Arc<App>>,
    Json(request): Json<PullRequest>,
) -> Result<axum::Json<ImageInfo>, ApiError> {
    let invalid = |error: &kiln_types::reference::ParseReferenceError| {
        ApiError::of(ErrorCode::InvalidReference, error)
    };
    let reference: Reference = request.reference.parse().map_err(|error| invalid(&error))?;
    let name: Option<ImageName> =
        request.name.map(|name| name.parse().map_err(|error| invalid(&error))).transpose()?;
    app.pull_image(reference, name).await.map(axum::Json)
}

pub(super) async fn get_named_pull(
    state: State<Arc<App>>,
) -> Result<axum::Json<ImageInfo>, ApiError> {
    get(state, Path("pull".to_owned())).await
}

pub(super) async fn remove_named_pull(
    state: State<Arc<App>>,
) -> Result<axum::Json<RemovedImage>, ApiError> {
    remove(state, Path("pull".to_owned())).await
}
