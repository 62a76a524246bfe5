//! The one error type of the API, and its form on the wire (RFC 9457, `application/problem+json`).

use std::error::Error;
use std::io;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kiln_types::{ErrorCode, Problem};

/// The media type of every error's body.
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What every handler fails with.
#[derive(Debug)]
pub(crate) struct ApiError {
    /// What the client is told.
    pub(crate) problem: Box<Problem>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl ApiError {
    /// An error with a sentence of its own.
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    /// An error that another crate has met. The detail is the chain of its causes; a full disk gets
    /// its own code wherever it was met.
    pub(crate) fn of(code: ErrorCode, error: &(dyn Error + 'static)) -> Self {
        if code == ErrorCode::StorageFull || disk_is_full(error) {
            return Self::new(ErrorCode::StorageFull, chain(error)).hint(
                "free space in the data directory, for instance by removing images and sandboxes",
            );
        }
        Self::new(code, chain(error))
    }

    /// A command that was ended because the daemon ends.
    pub(crate) fn closing() -> Self {
        Self::new(ErrorCode::AgentUnavailable, "the daemon is shutting down; the command was ended")
            .hint("run it again when the daemon is back")
    }

    /// The same error with the way out.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }

    /// The same error with a response header that its status asks for (`Allow`, `WWW-Authenticate`).
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), header: None }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Problem { status, code, detail, .. } = self.problem.as_ref();
        if *status >= 500 {
            tracing::error!(?code, detail, "request failed");
        } else {
            tracing::debug!(?code, detail, "request refused");
        }
        let body = serde_json::to_vec(self.problem.as_ref()).expect("a problem has a JSON form");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if let Some(header) = self.header {
            let (name, value) = *header;
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn disk_is_full(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        }) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Conversions of the errors of the crates below: each knows the code that clients see.
macro_rules! from_coded {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for ApiError {
            fn from(error: $error) -> Self {
                Self::of(error.code(), &error)
            }
        }
    )+};
}

from_coded!(
    kiln_metadata::MetadataError,
    kiln_images::ImagesError,
    kiln_registry::RegistryError,
    kiln_build::BuildError,
    kiln_build::snapshot::SealError,
);

impl From<kiln_frontend::FrontendError> for ApiError {
    fn from(error: kiln_frontend::FrontendError) -> Self {
        error.problem().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not write {path}")]
    struct Outer {
        path: &'static str,
        #[source]
        source: io::Error,
    }

    #[test]
    fn a_full_disk_is_named_wherever_it_is_met() {
        for (kind, code) in [
            (io::ErrorKind::StorageFull, ErrorCode::StorageFull),
            (io::ErrorKind::PermissionDenied, ErrorCode::Internal),
        ] {
            let error = Outer { path: "/x", source: kind.into() };
            let api = ApiError::of(ErrorCode::Internal, &error);
            assert_eq!(api.problem.code, code);
            assert_eq!(
                api.problem.detail,
                format!("could not write /x: {}", io::Error::from(kind))
            );
        }
    }
}
