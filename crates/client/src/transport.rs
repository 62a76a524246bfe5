//! Where the daemon is and how requests get there.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use kiln_types::api::{DoctorReport, Health, Page};
use kiln_types::{ErrorCode, Problem};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use crate::ClientError;

/// Where a daemon listens.
#[derive(Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Its Unix socket; the file's permissions are the authentication.
    Unix(PathBuf),
    /// Its HTTP address, with an API key.
    Http {
        /// `http://host:port` or `https://…`, without a trailing slash.
        url: String,
        /// The key.
        key: Option<String>,
    },
}

impl FromStr for Endpoint {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path.trim_start_matches("//"))));
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            let refused =
                |reason: String| Err(ClientError::Endpoint { endpoint: text.to_owned(), reason });
            return match text.parse::<Url>() {
                Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                    refused("a query or a fragment has no meaning in it".to_owned())
                }
                Ok(_) => Ok(Self::Http { url: text.trim_end_matches('/').to_owned(), key: None }),
                Err(error) => refused(error.to_string()),
            };
        }
        Err(ClientError::Endpoint {
            endpoint: text.to_owned(),
            reason: "give a socket path, `unix:PATH`, `http://HOST:PORT` or `https://…`".to_owned(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Http { url, .. } => f.write_str(url),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A handle on one daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
}

impl Client {
    /// A client of the daemon at `endpoint`. Nothing is sent yet.
    pub fn new(endpoint: Endpoint) -> Result<Self, ClientError> {
        let builder = reqwest::Client::builder().no_proxy();
        let builder = match &endpoint {
            Endpoint::Unix(path) => builder.unix_socket(path.clone()).tls_certs_only([]),
            // Reading the host's certificates costs milliseconds that a plain connection never needs.
            Endpoint::Http { url, .. } if url.starts_with("http://") => builder.tls_certs_only([]),
            Endpoint::Http { .. } => builder,
        };
        let http = builder.build().map_err(|error| ClientError::Endpoint {
            endpoint: endpoint.to_string(),
            reason: error.to_string(),
        })?;
        Ok(Self { http, endpoint })
    }

    /// Where this client's daemon is.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the daemon answers.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get("/v1/health").await
    }

    /// What the daemon's host offers.
    pub async fn doctor(&self) -> Result<DoctorReport, ClientError> {
        self.get("/v1/doctor").await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = match &self.endpoint {
            Endpoint::Unix(_) => format!("http://kiln{path}"),
            Endpoint::Http { url, .. } => format!("{url}{path}"),
        };
        let request = self.http.request(method, url);
        match &self.endpoint {
            Endpoint::Http { key: Some(key), .. } => request.bearer_auth(key),
            _ => request,
        }
    }

    /// Sends, and turns a refusal into the problem that the daemon named.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|source| self.unanswered(source))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|source| ClientError::Broken {
            action: "described an error",
            source: source.into(),
        })?;
        Err(ClientError::Problem(serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
            status,
            code: ErrorCode::Internal,
            detail: format!("status {status}: {}", String::from_utf8_lossy(&body)),
            hint: None,
        })))
    }

    /// Only what failed on the way to the daemon says that it could not be reached.
    fn unanswered(&self, source: reqwest::Error) -> ClientError {
        let endpoint = self.endpoint.to_string();
        if source.is_builder() {
            let reason = "the API key has characters that a header cannot hold".to_owned();
            return ClientError::Endpoint { endpoint, reason };
        }
        if source.is_connect() {
            return ClientError::Connect { endpoint, source: source.into() };
        }
        ClientError::Broken { action: "worked on a request", source: source.into() }
    }

    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let body = self.send(request).await?.bytes().await.map_err(|source| {
            ClientError::Broken { action: "sent its answer", source: source.into() }
        })?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Protocol {
            action: "a request",
            reason: error.to_string(),
        })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(self.request(Method::GET, path)).await
    }

    /// Every item of a paginated list.
    pub(crate) async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut request = self.request(Method::GET, path);
            if let Some(cursor) = &cursor {
                request = request.query(&[("cursor", cursor)]);
            }
            let page: Page<T> = self.json(request).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(items),
            }
        }
    }
}

/// The path of one item of `collection`. A path has no way to write a segment that is empty, `.` or `..`,
/// not even an escaped one: it would be taken for a step in the path.
pub(crate) fn item(collection: &str, name: &str) -> Result<String, ClientError> {
    match name {
        "" | "." | ".." => Err(ClientError::Name { name: name.to_owned() }),
        name => Ok(format!("{collection}/{}", segment(name))),
    }
}

/// `text` as one path segment: everything but unreserved characters is escaped.
fn segment(text: &str) -> String {
    use fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, shown) in [
            ("/run/kiln.sock", "/run/kiln.sock"),
            ("unix:/run/kiln.sock", "/run/kiln.sock"),
            ("unix:///run/kiln.sock", "/run/kiln.sock"),
            ("http://127.0.0.1:7070/", "http://127.0.0.1:7070"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for (text, reason) in [
            ("localhost:1", "unix:PATH"),
            ("http://", "empty host"),
            ("http://localhost:70000", "port"),
            ("http://localhost:7070?key=x", "query"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn names_become_one_segment() {
        assert_eq!(item("/v1/images", "a/b:c d%").unwrap(), "/v1/images/a%2Fb%3Ac%20d%25");
        for name in ["", ".", ".."] {
            let error = item("/v1/images", name).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
    }
}
