//! The routes, and the router that they make. One registration makes both a route and its
//! description, so the two cannot drift.

mod builds;
mod exec;
mod exec_socket;
mod exec_stream;
mod files;
mod images;
mod sandboxes;
mod snapshots;
mod store;
mod system;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use kiln_types::ErrorCode;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::{Keys, require_key};
use crate::contract::{self, Contract};
use crate::extract::{MAX_JSON, shorten};
use crate::problem::ApiError;
use crate::request_id::{panicked, trace};

/// Routes that anybody may ask.
fn open_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(system::health)).routes(routes!(system::openapi))
}

/// Routes that need a key over TCP.
fn closed_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(system::doctor))
        .routes(routes!(images::list))
        .routes(routes!(images::pull))
        .routes(routes!(images::get, images::remove))
        .routes(routes!(builds::create, builds::list))
        .routes(routes!(builds::get))
        .routes(routes!(builds::log))
        .routes(routes!(sandboxes::create, sandboxes::list))
        .routes(routes!(sandboxes::get, sandboxes::remove))
        .routes(routes!(sandboxes::start))
        .routes(routes!(sandboxes::stop))
        .routes(routes!(exec::run))
        .routes(routes!(exec_socket::stream))
        .routes(routes!(files::read, files::write, files::remove))
        .routes(routes!(files::list))
        .routes(routes!(files::stat))
        .routes(routes!(files::mkdir))
        .routes(routes!(snapshots::create, snapshots::list))
        .routes(routes!(snapshots::get, snapshots::remove))
        .routes(routes!(store::fsck))
        .routes(routes!(store::gc))
        .routes(routes!(store::usage))
}

/// All routes, for their description.
pub(crate) fn all() -> OpenApiRouter<Arc<App>> {
    open_routes().merge(closed_routes())
}

/// The router: with `keys`, only for those who have one.
pub(crate) fn router(app: Arc<App>, keys: Option<Keys>) -> Router {
    let contract = from_fn_with_state(Contract::of(&all().into_openapi()), contract::check);
    let (mut open, _) = open_routes().split_for_parts();
    let (mut closed, _) = closed_routes().split_for_parts();
    // An image called `pull` is not out of reach because the path is also that of pulling.
    closed = closed.route(
        "/v1/images/pull",
        axum::routing::get(images::get_named_pull).delete(images::remove_named_pull),
    );
    // Before the key's layer, that is inside of it: nobody without a key is told anything of a route.
    open = open.route_layer(contract.clone());
    closed = closed.route_layer(contract);
    if let Some(keys) = keys {
        closed = closed.route_layer(from_fn_with_state(keys, require_key));
    }
    open.merge(closed)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(MAX_JSON))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(trace))
        .with_state(app)
}

async fn no_route(uri: Uri) -> ApiError {
    let path = uri.path();
    let error = ApiError::new(
        ErrorCode::RouteNotFound,
        format!("`{}` is no route of this API", shorten(path)),
    );
    if path.starts_with("/v1/images/") || path.starts_with("/v1/snapshots/") {
        return error.hint("a name is one path segment: write `/` in it as `%2F`");
    }
    error.hint("the routes are described at `/v1/openapi.json`")
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        ErrorCode::MethodNotAllowed,
        format!("`{}` does not take {}", shorten(uri.path()), shorten(method.as_str())),
    )
    .hint("the routes and their methods are described at `/v1/openapi.json`")
}
