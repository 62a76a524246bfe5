//! Request ids, the access log, and the answer to a handler that panicked.

use std::any::Any;
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kiln_types::ErrorCode;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::Instrument;

use crate::problem::ApiError;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives every request an id (the client's own, when it is a sane one), a span and a line in the log.
pub(crate) async fn trace(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|value| is_sane(value.as_bytes()))
        .cloned()
        .unwrap_or_else(next_id);
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        path = request.uri().path(),
    );
    async move {
        let start = Instant::now();
        let mut response = next.run(request).await;
        let elapsed_us = start.elapsed().as_micros() as u64;
        tracing::info!(status = response.status().as_u16(), elapsed_us, "answered");
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }
    .instrument(span)
    .await
}

/// Turns a panic into a problem; the connection and the daemon live on.
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message");
    tracing::error!(message, "a handler panicked");
    ApiError::new(ErrorCode::Internal, "the daemon met a fault of its own; its log has the details")
        .into_response()
}

fn is_sane(id: &[u8]) -> bool {
    (1..=64).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Unique within this life of the daemon, which is all that a log needs.
fn next_id() -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    HeaderValue::from_str(&format!("req-{}-{number}", std::process::id()))
        .expect("digits, letters and dashes are a header value")
}
