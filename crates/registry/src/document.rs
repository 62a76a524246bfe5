//! Small bodies: manifests, indexes, configs.

use kiln_images::oci::{
    CONFIG_LIMIT, DocumentError, Index, MANIFEST_LIMIT, MEDIA_DOCKER_LIST, MEDIA_DOCKER_MANIFEST,
    MEDIA_INDEX, MEDIA_MANIFEST, Manifest,
};
use kiln_types::json::JsonError;
use kiln_types::{Digest, Reference};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::client::{Inner, Report};
use crate::endpoint::Endpoint;
use crate::error::{Asked, RegistryError};
use crate::request::{Ask, transport};
use crate::retry::Attempts;

/// What is accepted where a manifest is asked for.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The digest of what an answer is of (distribution specification, "Pulling manifests").
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A manifest or an index, with the digest that its bytes have.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) content: Content,
}

/// What an answer for a manifest is.
#[derive(Debug)]
pub(crate) enum Content {
    Manifest(Manifest),
    Index(Index),
}

impl Inner {
    /// The digest of what a tag points to, without fetching it if the registry says it.
    pub(crate) async fn head(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
    ) -> Result<Digest, RegistryError> {
        let tag = reference.tag().unwrap_or("latest");
        let mut ask = Ask::get(format!("manifests/{tag}"), MANIFESTS, format!("manifest {tag}"));
        ask.method = Method::HEAD;
        let mut attempts = Attempts::new(&self.config, endpoint.last);
        let digest = match self.request(endpoint, &ask, &mut attempts, &|_| ()).await {
            Ok(response) => response
                .headers()
                .get(CONTENT_DIGEST)
                .and_then(|value| value.to_str().ok()?.parse::<Digest>().ok()),
            // Some servers know only GET.
            Err(RegistryError::Status { .. }) => None,
            Err(error) => return Err(error),
        };
        match digest {
            Some(digest) => Ok(digest),
            None => Ok(self.manifest(endpoint, tag, None, &|_| ()).await?.digest),
        }
    }

    /// Fetches a manifest or index by tag or digest; with `expected`, nothing else is accepted.
    pub(crate) async fn manifest(
        &self,
        endpoint: &Endpoint,
        reference: &str,
        expected: Option<&Digest>,
        report: Report<'_>,
    ) -> Result<Fetched, RegistryError> {
        let what = format!("manifest {reference}");
        let asked = endpoint.asked(what.as_str());
        let ask = Ask::get(format!("manifests/{reference}"), MANIFESTS, what);
        let (bytes, headers) = self.document(endpoint, &ask, MANIFEST_LIMIT, report).await?;
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let media_type = text(CONTENT_TYPE);
        // What comes by tag is at least what the registry itself says that it is.
        let stated = text(CONTENT_DIGEST).and_then(|digest| digest.parse::<Digest>().ok());
        let digest = verify(&asked, &bytes, expected.or(stated.as_ref()))?;
        let content = content(&bytes, media_type, &asked)?;
        Ok(Fetched { bytes, digest, content })
    }

    /// Fetches a config.
    pub(crate) async fn config_blob(
        &self,
        endpoint: &Endpoint,
        digest: &Digest,
        size: u64,
        report: Report<'_>,
    ) -> Result<Vec<u8>, RegistryError> {
        let what = format!("config {digest}");
        let asked = endpoint.asked(what.as_str());
        let ask = Ask::get(format!("blobs/{digest}"), "*/*", what);
        let (bytes, _) = self.document(endpoint, &ask, CONFIG_LIMIT, report).await?;
        verify(&asked, &bytes, Some(digest))?;
        let found = bytes.len() as u64;
        if found != size {
            return Err(RegistryError::WrongSize { asked, expected: size, found });
        }
        Ok(bytes)
    }

    /// A body of at most `limit` bytes, and its headers.
    async fn document(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        limit: u64,
        report: Report<'_>,
    ) -> Result<(Vec<u8>, HeaderMap), RegistryError> {
        let asked = endpoint.asked(ask.what.as_str());
        let mut attempts = Attempts::new(&self.config, endpoint.last);
        loop {
            let response = self.request(endpoint, ask, &mut attempts, report).await?;
            let headers = response.headers().clone();
            match self.read_body(response, limit, &asked).await {
                Ok(bytes) => return Ok((bytes, headers)),
                Err(error @ (RegistryError::Transport { .. } | RegistryError::TooSlow { .. })) => {
                    self.pause(error, None, &mut attempts, report).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads a body to its end, but no more than `limit` bytes, and not for longer than a server may be
    /// silent twice.
    pub(crate) async fn read_body(
        &self,
        mut response: Response,
        limit: u64,
        asked: &Asked,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        let deadline = self.config.read_timeout() * 2;
        let failed = |error| transport(Box::new(asked.clone()), error);
        let read = async {
            while let Some(chunk) = response.chunk().await.map_err(failed)? {
                if (bytes.len() + chunk.len()) as u64 > limit {
                    return Err(RegistryError::TooLarge { asked: Box::new(asked.clone()), limit });
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(())
        };
        match tokio::time::timeout(deadline, read).await {
            Ok(read) => read.map(|()| bytes),
            Err(_) => Err(RegistryError::TooSlow {
                asked: Box::new(asked.clone()),
                found: bytes.len() as u64,
                seconds: deadline.as_secs(),
            }),
        }
    }
}

fn verify(asked: &Asked, bytes: &[u8], expected: Option<&Digest>) -> Result<Digest, RegistryError> {
    let found = Digest::of(bytes);
    match expected {
        Some(expected) if *expected != found => Err(RegistryError::WrongDigest {
            asked: Box::new(asked.clone()),
            expected: *expected,
            found,
        }),
        _ => Ok(found),
    }
}

/// Tells manifest and index apart. A body that is both by some reading is refused: two readers of it
/// would see two different images.
fn content(bytes: &[u8], header: Option<&str>, asked: &Asked) -> Result<Content, RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        media_type: Option<String>,
        manifests: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
        config: Option<IgnoredAny>,
    }
    let document = |source| RegistryError::Document { asked: Box::new(asked.clone()), source };
    let unsupported = |problem: String| {
        Err(RegistryError::Unsupported { asked: Box::new(asked.clone()), problem })
    };
    kiln_types::json::check_keys(bytes).map_err(|error| document(DocumentError::Json(error)))?;
    let probe: Probe = serde_json::from_slice(bytes).map_err(|error| {
        let reason = error.to_string();
        document(DocumentError::Json(JsonError::Value { field: None, reason }))
    })?;
    let header = header.map(|header| header.split(';').next().unwrap_or(header).trim());
    let by_header = header.and_then(is_index);
    let by_body = match &probe.media_type {
        Some(media_type) => match is_index(media_type) {
            Some(index) => Some(index),
            None => {
                return unsupported(format!(
                    "its media type is `{}`",
                    media_type.chars().take(120).collect::<String>().escape_debug()
                ));
            }
        },
        None => None,
    };
    let by_fields =
        match (probe.manifests.is_some(), probe.layers.is_some() || probe.config.is_some()) {
            (true, true) => return unsupported("it is a manifest and an index at once".into()),
            (index, _) => index,
        };
    if [by_header, by_body].into_iter().flatten().any(|index| index != by_fields) {
        return unsupported(
            "its media type and its content disagree whether it is an index".into(),
        );
    }
    if by_fields {
        Ok(Content::Index(Index::parse(bytes).map_err(document)?))
    } else {
        Ok(Content::Manifest(Manifest::parse(bytes).map_err(document)?))
    }
}

fn is_index(media_type: &str) -> Option<bool> {
    match media_type {
        MEDIA_INDEX | MEDIA_DOCKER_LIST => Some(true),
        MEDIA_MANIFEST | MEDIA_DOCKER_MANIFEST => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_what_all_signs_say() {
        let asked = Asked { host: "h".into(), repository: "r".into(), what: "manifest x".into() };
        let digest = Digest::of("x");
        let config = format!(r#""config":{{"digest":"{digest}","size":1}}"#);
        let manifest = format!(r#"{{"schemaVersion":2,{config},"layers":[]}}"#);
        let index = r#"{"schemaVersion":2,"manifests":[]}"#.to_owned();
        let typed = format!(r#"{{"schemaVersion":2,"mediaType":"{MEDIA_INDEX}","manifests":[]}}"#);
        let both = format!(r#"{{"schemaVersion":2,{config},"layers":[],"manifests":[]}}"#);
        let chart = r#"{"schemaVersion":2,"mediaType":"a/b"}"#.to_owned();
        for (body, header, expected) in [
            (&manifest, None, Ok(false)),
            (&manifest, Some(MEDIA_MANIFEST), Ok(false)),
            (&manifest, Some("application/json"), Ok(false)),
            (&manifest, Some(MEDIA_DOCKER_LIST), Err("disagree")),
            (&index, Some("application/vnd.oci.image.index.v1+json; charset=utf-8"), Ok(true)),
            (&typed, None, Ok(true)),
            (&typed, Some(MEDIA_MANIFEST), Err("disagree")),
            (&both, None, Err("at once")),
            (&chart, None, Err("`a/b`")),
            (&"<html>".to_owned(), None, Err("not usable")),
        ] {
            match (content(body.as_bytes(), header, &asked), expected) {
                (Ok(found), Ok(index)) => {
                    assert_eq!(matches!(found, Content::Index(_)), index, "{body}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, expected) => panic!("{body}: {found:?}, not {expected:?}"),
            }
        }
    }
}
