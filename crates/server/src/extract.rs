//! Extractors whose refusals are problem documents: JSON bodies, queries and path parameters.

use std::borrow::Cow;

use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::Bytes;
use kiln_types::ErrorCode;
use kiln_types::json::JsonError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::ApiError;

/// The largest JSON body: build definitions carry the content of their files.
pub(crate) const MAX_JSON: usize = 64 << 20;

/// A JSON body. Errors name the field's path, the line and the column.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned + Serialize, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let media_type = request
            .headers()
            .get(CONTENT_TYPE)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let essence = media_type.as_deref().unwrap_or("").split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let detail = match &media_type {
                Some(given) => format!("the body's media type is `{}`", shorten(given)),
                None => "the request has no `Content-Type` header".to_owned(),
            };
            return Err(ApiError::new(ErrorCode::UnsupportedMediaType, detail)
                .hint("send JSON with `Content-Type: application/json`"));
        }
        let body = Bytes::from_request(request, state).await.map_err(refused_body)?;
        parse(&body).map(Self)
    }
}

/// Parses a JSON document as a request's message, strictly: see [`kiln_types::json`].
pub(crate) fn parse<T: DeserializeOwned + Serialize>(text: &[u8]) -> Result<T, ApiError> {
    kiln_types::json::from_slice(text).map_err(|error| {
        let detail = match &error {
            JsonError::Empty => "the body is empty; JSON is expected".to_owned(),
            JsonError::Array => "the body is an array; a JSON object is expected".to_owned(),
            JsonError::Syntax(cause) => format!("the body is not JSON: {cause}"),
            JsonError::Value { field: None, reason } => format!("the body is not valid: {reason}"),
            other => other.to_string(),
        };
        ApiError::new(ErrorCode::InvalidRequest, detail)
            .hint("what the route takes is described at `/v1/openapi.json`")
    })
}

fn refused_body(rejection: BytesRejection) -> ApiError {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            let limit = MAX_JSON >> 20;
            ApiError::new(
                ErrorCode::PayloadTooLarge,
                format!("the body is larger than the {limit} MiB that this route takes"),
            )
        }
        other => ApiError::new(
            ErrorCode::InvalidRequest,
            format!("the body could not be read: {}", other.body_text()),
        ),
    }
}

/// The query. Unknown parameters are refused where the type denies them.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // The parser would put a replacement for what it cannot read, and so name something else.
        if !decodes_to_utf8(parts.uri.query().unwrap_or_default()) {
            return Err(ApiError::new(
                ErrorCode::InvalidRequest,
                "the query is not valid: percent-decoded, it is not UTF-8",
            ));
        }
        axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection| {
                let text = rejection.body_text();
                let reason =
                    text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                ApiError::new(
                    ErrorCode::InvalidRequest,
                    format!("the query is not valid: {reason}"),
                )
            })
    }
}

/// Parameters of the path, percent-decoded.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection| {
                ApiError::new(
                    ErrorCode::InvalidRequest,
                    format!("the path is not valid: {}", rejection.body_text()),
                )
            })
    }
}

/// Whether a percent-encoded text is UTF-8 when it is decoded.
fn decodes_to_utf8(encoded: &str) -> bool {
    std::str::from_utf8(&percent_decoded(encoded)).is_ok()
}

/// A percent-encoded text as it was meant. A `%` that begins no pair of hex digits stands for itself.
pub(crate) fn percent_decoded(encoded: &str) -> Cow<'_, [u8]> {
    if !encoded.contains(['%', '+']) {
        return Cow::Borrowed(encoded.as_bytes());
    }
    let mut rest = encoded.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        let pair = after.get(..2).filter(|_| byte == b'%');
        let value = pair.and_then(|pair| hex::decode(pair).ok());
        let plain = if byte == b'+' { b' ' } else { byte };
        decoded.push(value.as_ref().map_or(plain, |value| value[0]));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(decoded)
}

/// The beginning of a text that a client sent, for an error message.
pub(crate) fn shorten(text: &str) -> String {
    const LIMIT: usize = 80;
    let mut short: String = text.chars().take(LIMIT).collect();
    if text.chars().nth(LIMIT).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use kiln_types::api::CreateSandbox;

    use super::*;

    #[test]
    fn encoded_texts_are_utf8_or_not() {
        for (encoded, utf8) in [
            ("", true),
            ("path=a%20b&c=%C3%BC", true),
            ("%f0%9f%A6%80", true),
            ("100%&%zz%4", true),
            ("path=x%FF", false),
            ("%C3", false),
            ("%C3%", false),
        ] {
            assert_eq!(decodes_to_utf8(encoded), utf8, "{encoded}");
        }
    }

    #[test]
    fn errors_of_bodies_name_field_and_position() {
        for (body, expected) in [
            ("", "the body is empty"),
            ("{", "the body is not JSON: EOF while parsing an object at line 1 column 1"),
            ("{\"image\": \"x\"} tail", "the body is not JSON: trailing characters"),
            ("{\"image\": 1}", "`image` is not valid: invalid type: integer `1`"),
            ("{}", "the body is not valid: missing field `image`"),
            (" [\"debian-12\"]", "the body is an array"),
            (
                "{\"image\": \"x\", \"limits\": [1, 64, 64]}",
                "the body is not valid: `limits` is an array; a JSON object is expected",
            ),
            (
                "{\"image\": \"x\", \"env\": {\"A\": \"1\", \"A\": \"2\"}}",
                "the body is not valid: `env.A` is there twice",
            ),
            (
                "{\"image\": \"x\",\n \"limits\": {\"vcpu\": -1}}",
                "`limits.vcpu` is not valid: invalid value: integer `-1`, expected u32 at line 2",
            ),
            (
                "{\"imgae\": \"x\"}",
                "`imgae` is not valid: unknown field `imgae`, expected one of `image`",
            ),
        ] {
            let error = parse::<CreateSandbox>(body.as_bytes()).unwrap_err();
            assert_eq!(error.problem.code, ErrorCode::InvalidRequest);
            assert!(error.problem.detail.starts_with(expected), "{body}: {}", error.problem.detail);
        }
        let error = parse::<kiln_types::api::BuildRequest>(b"{\"source\": null}").unwrap_err();
        assert!(error.problem.detail.starts_with("`source` is not valid"), "{:?}", error.problem);
        let parsed: CreateSandbox = parse(br#"{"image": "debian-12"}"#).unwrap();
        assert_eq!(parsed.image, "debian-12");
    }
}
