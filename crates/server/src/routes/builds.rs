//! Builds and their logs.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{AppendHeaders, IntoResponse, Response};
use futures_util::StreamExt;
use kiln_build::BuildPlan;
use kiln_types::api::{BuildInfo, BuildRequest, Page};
use kiln_types::{BuildEvent, BuildId, ErrorCode};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::builds;
use crate::extract::{Json, Path, Query, shorten};
use crate::page::{PageQuery, page};
use crate::problem::ApiError;

/// Start a build; it goes on by itself
#[utoipa::path(
    post, path = "/v1/builds", tag = "builds", operation_id = "create_build", request_body = BuildRequest,
    responses((status = 202, description = "The build was accepted and runs", body = BuildInfo)),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Json(request): Json<BuildRequest>,
) -> Result<Response, ApiError> {
    let plan = BuildPlan::from_request(&request)?;
    let build = app.builder.start(plan).await?;
    let location = format!("/v1/builds/{}", build.id);
    let body = axum::Json(builds::info(build));
    Ok((StatusCode::ACCEPTED, AppendHeaders([(header::LOCATION, location)]), body).into_response())
}

/// List builds, newest first
#[utoipa::path(
    get, path = "/v1/builds", tag = "builds", operation_id = "list_builds", params(PageQuery),
    responses((status = 200, description = "One page", body = Page<BuildInfo>)),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<BuildInfo>>, ApiError> {
    let (limit, cursor) = (query.limit()?, query.cursor::<BuildId>()?);
    let rows = app.images.metadata().list_builds(cursor.as_ref(), limit + 1).await?;
    let rows = page(rows, limit, |row| row.id.to_string());
    let items = rows.items.into_iter().map(|row| builds::info(app.builder.known(row))).collect();
    Ok(axum::Json(Page { items, next: rows.next }))
}

/// One build
#[utoipa::path(
    get, path = "/v1/builds/{build}", tag = "builds", operation_id = "get_build",
    params(("build" = String, Path, description = "Its id")),
    responses((status = 200, description = "The build", body = BuildInfo)),
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(build): Path<String>,
) -> Result<axum::Json<BuildInfo>, ApiError> {
    let id = parse_id(&build)?;
    let row = app.images.metadata().get_build(&id).await?;
    let row = row.ok_or_else(|| not_found(&build))?;
    Ok(axum::Json(builds::info(app.builder.known(row))))
}

/// The largest number that an event can have.
const LAST_EVENT: u64 = i64::MAX as u64;

/// Where to begin in a build's log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    /// Number of the first event to send. A `Last-Event-ID` header, as browsers send it when they
    /// connect again, goes before it.
    #[serde(default)]
    from: u64,
}

/// Follow a build's log until its last event, `finished`
#[utoipa::path(
    get, path = "/v1/builds/{build}/log", tag = "builds", operation_id = "follow_build_log",
    params(
        ("build" = String, Path, description = "Its id"),
        LogQuery,
        ("Last-Event-ID" = Option<u64>, Header, description = "Number of the last event that was received"),
    ),
    responses((status = 200, description = "Server-sent events; the data of each is a `BuildEvent`, its id the event's number", content_type = "text/event-stream", body = BuildEvent)),
)]
pub(super) async fn log(
    State(app): State<Arc<App>>,
    Path(build): Path<String>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // What the description calls an `int64`.
    if query.from > LAST_EVENT {
        let detail = format!("`from` is {}; it must be at most {LAST_EVENT}", query.from);
        return Err(ApiError::new(ErrorCode::InvalidRequest, detail));
    }
    let id = parse_id(&build)?;
    let from = match headers.get("last-event-id") {
        None => query.from,
        Some(value) => {
            let number = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
            let last = number.filter(|number| *number <= LAST_EVENT).ok_or_else(|| {
                let given = String::from_utf8_lossy(value.as_bytes()).into_owned();
                ApiError::new(
                    ErrorCode::InvalidRequest,
                    format!(
                        "the header `Last-Event-ID` is `{}`, not the number of an event",
                        shorten(&given)
                    ),
                )
            })?;
            last.saturating_add(1)
        }
    };
    if app.images.metadata().get_build(&id).await?.is_none() {
        return Err(not_found(&build));
    }
    let events = app.builder.log(&id, from).await?;
    let stream = events
        .map(|event| {
            let text = serde_json::to_string(&event).map_err(axum::Error::new)?;
            Ok::<_, axum::Error>(Event::default().id(event.seq.to_string()).data(text))
        })
        .take_until(app.closing.clone().cancelled_owned());
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

fn parse_id(text: &str) -> Result<BuildId, ApiError> {
    text.parse().map_err(|error| ApiError::of(ErrorCode::InvalidRequest, &error))
}

fn not_found(build: &str) -> ApiError {
    ApiError::new(ErrorCode::BuildNotFound, format!("there is no build {build}"))
        .hint("`kiln builds` lists the builds there are")
}
