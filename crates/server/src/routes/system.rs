//! The daemon and its host.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use kiln_types::api::{DoctorReport, Health};

use crate::app::App;
use crate::problem::ApiError;

/// Whether the daemon answers
#[utoipa::path(
    get, path = "/v1/health", tag = "system", security(()),
    responses((status = 200, description = "It does", body = Health)),
)]
pub(super) async fn health(State(app): State<Arc<App>>) -> axum::Json<Health> {
    axum::Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sandboxes_running: app.sandboxes.running() as u64,
    })
}

/// The description of this API
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "system", security(()),
    responses((status = 200, description = "An OpenAPI 3.1 document", body = Object)),
)]
pub(super) async fn openapi() -> Response {
    axum::Json(crate::openapi()).into_response()
}

/// What the daemon's host offers, and what is missing
#[utoipa::path(
    get, path = "/v1/doctor", tag = "system",
    responses((status = 200, description = "The findings", body = DoctorReport)),
)]
pub(super) async fn doctor(
    State(app): State<Arc<App>>,
) -> Result<axum::Json<DoctorReport>, ApiError> {
    let report = tokio::task::spawn_blocking(move || crate::doctor::report(&app.config)).await;
    report.map(axum::Json).map_err(|error| ApiError::of(kiln_types::ErrorCode::Internal, &error))
}
