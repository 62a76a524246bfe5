//! The routes of the distribution specification that tests use, and those of a token server.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State as Extract};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use futures_util::stream;
use kiln_types::Digest;
use serde_json::json;

use super::access::{Access, authorization, is_basic};
use super::fault::Action;
use super::state::{Seen, State};

/// The size of the pieces that bodies are sent in.
const PIECE: usize = 16 << 10;
/// The largest upload.
const UPLOAD: usize = 1 << 30;

pub(super) fn registry(state: Arc<State>) -> Router {
    Router::new()
        .route("/v2/", any(StatusCode::OK))
        .route("/v2/{*rest}", any(serve))
        .with_state(state)
}

pub(super) fn tokens(state: Arc<State>) -> Router {
    Router::new().route("/token", get(token)).with_state(state)
}

fn see(state: &State, method: &Method, path: &str, headers: &HeaderMap) {
    let text = |name| headers.get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
    state.see(Seen {
        method: method.to_string(),
        path: path.to_owned(),
        authorization: text(header::AUTHORIZATION),
        range: text(header::RANGE),
    });
}

async fn token(
    Extract(state): Extract<Arc<State>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    see(&state, &Method::GET, "/token", &headers);
    match state.take_fault("/token") {
        Some(Action::Status { status, .. }) => {
            return StatusCode::from_u16(status).expect("a status").into_response();
        }
        Some(Action::Redirect(to)) => return redirect(&format!("{to}/token")),
        _ => {}
    }
    let Access::Bearer { user } = &state.access else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let known = match user {
        Some((user, password)) => is_basic(&headers, user, password),
        None => authorization(&headers).is_none(),
    };
    if !known {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match (query.get("scope"), query.get("service").map(String::as_str)) {
        (Some(scope), Some("test registry")) => {
            axum::Json(json!({ "token": state.issue_token(scope), "expires_in": 60 }))
                .into_response()
        }
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn serve(Extract(state): Extract<Arc<State>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let full = parts.uri.path_and_query().map_or(path.clone(), ToString::to_string);
    see(&state, &parts.method, &full, &parts.headers);
    let rest = path.trim_start_matches("/v2/");
    let Some((repository, kind, reference)) = split(rest) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if !state.allows(&parts.headers, repository) {
        return unauthorized(&state, repository);
    }
    let read = matches!(parts.method, Method::GET | Method::HEAD);
    let fault = if read { state.take_fault(&path) } else { None };
    match fault {
        Some(Action::Status { status, retry_after }) => {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = json!({ "errors": [{ "code": "TEST", "message": "planned\nfailure" }] });
            let mut response = (status, axum::Json(error)).into_response();
            if let Some(value) = retry_after {
                let value = value.try_into().expect("a header's value");
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
            return response;
        }
        Some(Action::Redirect(to)) => return redirect(&format!("{to}{path}")),
        _ => {}
    }
    match (kind, &parts.method) {
        ("manifests", &Method::GET | &Method::HEAD) => {
            match state.manifest(repository, reference) {
                Some((media_type, bytes)) => {
                    let digest = Digest::of(&bytes).to_string();
                    let headers = [
                        ("content-type".to_owned(), media_type),
                        ("docker-content-digest".to_owned(), digest),
                    ];
                    content(&parts.headers, bytes, fault, &headers)
                }
                None => missing("MANIFEST_UNKNOWN"),
            }
        }
        ("blobs", &Method::GET | &Method::HEAD) => match state.blob(repository, reference) {
            Some(bytes) => content(&parts.headers, bytes, fault, &[]),
            None => missing("BLOB_UNKNOWN"),
        },
        ("blobs", &Method::POST) => {
            let location = format!("/v2/{repository}/blobs/uploads/1?x=y");
            (StatusCode::ACCEPTED, [(header::LOCATION, location)]).into_response()
        }
        (_, &Method::PUT) => {
            let bytes = axum::body::to_bytes(body, UPLOAD).await.unwrap_or_default().to_vec();
            if kind == "manifests" {
                let media_type = parts.headers.get(header::CONTENT_TYPE);
                let media_type = media_type.and_then(|value| value.to_str().ok());
                state.put_manifest(repository, reference, media_type.unwrap_or_default(), bytes);
            } else {
                state.put_blob(repository, Digest::of(&bytes), bytes);
            }
            StatusCode::CREATED.into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// `a/b/manifests/tag` or `a/b/blobs/digest`.
fn split(rest: &str) -> Option<(&str, &str, &str)> {
    if let Some((repository, _)) = rest.split_once("/blobs/uploads/") {
        return Some((repository, "blobs", ""));
    }
    let (rest, reference) = rest.rsplit_once('/')?;
    let (repository, kind) = rest.rsplit_once('/')?;
    matches!(kind, "manifests" | "blobs").then_some((repository, kind, reference))
}

fn unauthorized(state: &State, repository: &str) -> Response {
    let challenge = match &state.access {
        Access::Basic { .. } => "Basic realm=\"test\"".to_owned(),
        _ => format!(
            "Bearer realm=\"http://{}/token\",service=\"test registry\",scope=\"repository:{repository}:pull\"",
            state.token_address
        ),
    };
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
}

fn missing(code: &str) -> Response {
    let error = json!({ "errors": [{ "code": code, "message": "unknown to registry" }] });
    (StatusCode::NOT_FOUND, axum::Json(error)).into_response()
}

fn redirect(to: &str) -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to.to_owned())]).into_response()
}

/// The content, as the request and the planned failure want it.
fn content(
    request: &HeaderMap,
    bytes: Bytes,
    fault: Option<Action>,
    headers: &[(String, String)],
) -> Response {
    let mut bytes = bytes;
    let mut limit = usize::MAX;
    let mut ranges = true;
    let mut drip = None;
    match fault {
        Some(Action::Drip(pause)) => drip = Some(pause),
        Some(Action::DropAfter(count)) => limit = count,
        Some(Action::Truncate(count)) => bytes.truncate(count),
        Some(Action::Replace(other)) => bytes = other.into(),
        Some(Action::Corrupt) => {
            let mut changed = bytes.to_vec();
            if let Some(last) = changed.last_mut() {
                *last ^= 1;
            }
            bytes = changed.into();
        }
        Some(Action::NoRange) => ranges = false,
        _ => {}
    }
    let total = bytes.len();
    let from = request
        .get(header::RANGE)
        .filter(|_| ranges)
        .and_then(|value| {
            value.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
        })
        .unwrap_or(0usize);
    if from > 0 && from >= total {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let body = bytes.slice(from..);
    let mut response = Response::builder().header(header::CONTENT_LENGTH, body.len());
    if from > 0 {
        let range = format!("bytes {from}-{}/{total}", total - 1);
        response =
            response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range);
    }
    for (name, value) in headers {
        response = response.header(name, value);
    }
    if let Some(pause) = drip {
        let pieces = stream::unfold(0, move |at| {
            let piece = (at < body.len()).then(|| body.slice(at..=at));
            async move {
                tokio::time::sleep(pause).await;
                Some((Ok::<_, std::io::Error>(piece?), at + 1))
            }
        });
        return response.body(Body::from_stream(pieces)).expect("the parts fit together");
    }
    let cut = limit < body.len();
    let body = body.slice(..limit.min(body.len()));
    let pieces: Vec<Result<Bytes, std::io::Error>> = (0..body.len())
        .step_by(PIECE)
        .map(|start| Ok(body.slice(start..(start + PIECE).min(body.len()))))
        .chain(cut.then(|| Err(std::io::Error::other("the connection is cut"))))
        .collect();
    response.body(Body::from_stream(stream::iter(pieces))).expect("the parts fit together")
}
