//! One request: with authorization, redirects and further attempts.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;

use crate::client::{Inner, Report};
use crate::endpoint::Endpoint;
use crate::error::{Asked, RegistryError};
use crate::progress::PullProgress;
use crate::retry::{Attempts, is_temporary, retry_after};

/// Redirects that are followed for one request.
const REDIRECTS: usize = 10;

/// The largest error body that is read, in bytes.
const ERROR_LIMIT: u64 = 64 << 10;

/// What is asked of an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Below the repository: `blobs/sha256:…`.
    pub(crate) path: String,
    pub(crate) accept: &'static str,
    /// First byte that is wanted.
    pub(crate) from: u64,
    /// For people.
    pub(crate) what: String,
}

impl Ask {
    pub(crate) fn get(path: String, accept: &'static str, what: String) -> Self {
        Self { method: Method::GET, path, accept, from: 0, what }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(self.accept));
        if self.from > 0 {
            let range = format!("bytes={}-", self.from);
            headers.insert(RANGE, range.try_into().expect("a number is ASCII"));
        }
        headers
    }
}

impl Inner {
    /// Asks until there is a successful answer or no attempt is left.
    pub(crate) async fn request(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        attempts: &mut Attempts,
        report: Report<'_>,
    ) -> Result<Response, RegistryError> {
        loop {
            let (error, wanted) = match self.send(endpoint, ask, report).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let temporary = is_temporary(response.status());
                    let wanted = retry_after(response.headers(), Timestamp::now());
                    let error = self.status_error(endpoint, ask, response).await;
                    if !temporary {
                        return Err(error);
                    }
                    (error, wanted)
                }
                Err(error @ RegistryError::Transport { .. }) => (error, None),
                Err(error) => return Err(error),
            };
            self.pause(error, wanted, attempts, report).await?;
        }
    }

    /// Waits for the next attempt after `error`, or gives it back if there is none.
    pub(crate) async fn pause(
        &self,
        error: RegistryError,
        wanted: Option<Duration>,
        attempts: &mut Attempts,
        report: Report<'_>,
    ) -> Result<(), RegistryError> {
        let Some(pause) = attempts.failed() else { return Err(error) };
        let pause = wanted.unwrap_or(pause);
        if pause > Duration::from_millis(self.config.max_retry_after_ms) {
            return Err(match error {
                RegistryError::Status { asked, status, .. } => {
                    RegistryError::Throttled { asked, status, seconds: pause.as_secs() }
                }
                error => error,
            });
        }
        let (what, reason) = (what(&error), error.one_line());
        tracing::warn!(what, reason, ?pause, "registry request failed, trying again");
        report(PullProgress::Retrying { what, reason, pause });
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Asks once; answers one 401 of the endpoint itself with what it wants.
    async fn send(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        report: Report<'_>,
    ) -> Result<Response, RegistryError> {
        let asked = endpoint.asked(ask.what.as_str());
        let key = Self::auth_key(endpoint);
        let mut secret = self.accepted().get(&key).cloned();
        let mut challenged = false;
        loop {
            let url = endpoint.url(&ask.path);
            let headers = ask.headers();
            let response =
                self.follow(&asked, ask.method.clone(), url, &headers, secret.as_ref()).await?;
            let wants_more =
                response.status() == StatusCode::UNAUTHORIZED && endpoint.is_at(response.url());
            if !wants_more || challenged {
                if let (true, true, Some(secret)) =
                    (challenged, response.status().is_success(), secret)
                {
                    self.accepted().insert(key, secret);
                }
                return Ok(response);
            }
            secret = Some(self.authorize(endpoint, &asked, response.headers(), report).await?);
            challenged = true;
        }
    }

    /// Sends a request and follows its redirects. `secret` goes to the first host only.
    pub(crate) async fn follow(
        &self,
        asked: &Asked,
        method: Method,
        first: Url,
        headers: &HeaderMap,
        secret: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let refuse =
            |problem| Err(RegistryError::Redirect { asked: Box::new(asked.clone()), problem });
        let http = self.http()?;
        let mut url = first.clone();
        for _ in 0..=REDIRECTS {
            let mut headers = headers.clone();
            if let Some(secret) = secret.filter(|_| url.origin() == first.origin()) {
                headers.insert(AUTHORIZATION, secret.clone());
            }
            let request = http.request(method.clone(), url.clone()).headers(headers);
            let response =
                request.send().await.map_err(|error| transport(Box::new(asked.clone()), error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let Some(next) = location.and_then(|location| url.join(location).ok()) else {
                return refuse("it does not say where to".into());
            };
            if !self.may_speak_to(&next) {
                let host = next.host_str().unwrap_or_default();
                return refuse(format!(
                    "{}://{host} does not use TLS, and is not in `plain_http`",
                    next.scheme()
                ));
            }
            url = next;
        }
        refuse(format!("there were more than {REDIRECTS} in a row"))
    }

    async fn status_error(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        response: Response,
    ) -> RegistryError {
        let asked = endpoint.asked(ask.what.as_str());
        match response.status().as_u16() {
            404 => RegistryError::NotFound { asked },
            status @ (401 | 403) => {
                RegistryError::Denied { asked, status, problem: self.denied(endpoint) }
            }
            status => {
                let body = self.read_body(response, ERROR_LIMIT, &asked).await.unwrap_or_default();
                RegistryError::Status { asked, status, detail: detail(&body) }
            }
        }
    }

    fn accepted(
        &self,
    ) -> std::sync::MutexGuard<'_, std::collections::HashMap<crate::auth::AuthKey, HeaderValue>>
    {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Signed addresses of storage services are secrets of their own, so no address gets into an error.
pub(crate) fn transport(asked: Box<Asked>, error: reqwest::Error) -> RegistryError {
    RegistryError::Transport { asked, source: error.without_url() }
}

fn what(error: &RegistryError) -> String {
    match error {
        RegistryError::Transport { asked, .. }
        | RegistryError::CutOff { asked, .. }
        | RegistryError::TooSlow { asked, .. }
        | RegistryError::Status { asked, .. } => asked.to_string(),
        RegistryError::Token { asked, .. } => format!("token for {asked}"),
        _ => "request".to_owned(),
    }
}

/// What a registry says of an error (distribution specification, "Error Codes"), made harmless.
fn detail(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Single>,
    }
    #[derive(Deserialize)]
    struct Single {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: Option<String>,
    }
    let Ok(Body { errors }) = serde_json::from_slice::<Body>(body) else { return String::new() };
    let lines: Vec<String> = errors
        .into_iter()
        .map(|Single { code, message }| [code, message.unwrap_or_default()].join(" "))
        .collect();
    let text: String = lines.join("; ").chars().filter(|c| !c.is_control()).take(300).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}
