//! The client and what its requests share.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kiln_types::{Digest, Reference};
use reqwest::Url;
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;

use crate::auth::AuthKey;
use crate::config::RegistryConfig;
use crate::credentials::Credentials;
use crate::endpoint::{Endpoint, is_host};
use crate::error::RegistryError;
use crate::progress::PullProgress;

/// A client of all registries that references name. Clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    pub(crate) inner: Arc<Inner>,
}

/// What the requests of a client share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: RegistryConfig,
    pub(crate) credentials: Credentials,
    /// Made by the first request, for it reads all certificates that the system trusts.
    http: Mutex<Option<reqwest::Client>>,
    /// What was last accepted, by host and repository.
    pub(crate) accepted: Mutex<HashMap<AuthKey, HeaderValue>>,
    /// Pulls that are under way, by manifest.
    pulls: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

/// Where a pull reports to.
pub(crate) type Report<'a> = &'a (dyn Fn(PullProgress) + Send + Sync);

impl RegistryClient {
    /// Makes a client; reads the Docker configuration if the configuration names one.
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        let inner = Inner {
            credentials: Credentials::load(&config)?,
            config,
            http: Mutex::default(),
            accepted: Mutex::default(),
            pulls: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The digest that a reference stands for now: of a manifest, or of an index of several.
    pub async fn resolve(&self, reference: &Reference) -> Result<Digest, RegistryError> {
        if let Some(digest) = reference.digest() {
            return Ok(*digest);
        }
        let endpoints = Endpoint::all(&self.inner.config, reference)?;
        let mut failed = Vec::new();
        for endpoint in &endpoints {
            match self.inner.head(endpoint, reference).await {
                Ok(digest) => return Ok(digest),
                Err(error) => failed.push((endpoint, error)),
            }
        }
        Err(all_failed(reference, failed))
    }
}

/// The one error that tells of all sources.
pub(crate) fn all_failed(
    reference: &Reference,
    mut failed: Vec<(&Endpoint, RegistryError)>,
) -> RegistryError {
    let (_, last) = failed.pop().expect("every reference has its registry as a source");
    if failed.is_empty() {
        return last;
    }
    let tried: Vec<String> = failed
        .iter()
        .map(|(endpoint, error)| format!("{} failed ({})", endpoint.key, error.one_line()))
        .collect();
    RegistryError::AllSources {
        reference: reference.to_string(),
        tried: tried.join(", "),
        source: Box::new(last),
    }
}

impl Inner {
    /// The HTTP client.
    pub(crate) fn http(&self) -> Result<reqwest::Client, RegistryError> {
        let mut http = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = http.as_ref() {
            return Ok(client.clone());
        }
        let mut certificates = Vec::new();
        for path in &self.config.ca_certificates {
            let failed = |source| RegistryError::Certificates { path: path.clone(), source };
            let pem = std::fs::read(path).map_err(failed)?;
            let found = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
            certificates.extend(found);
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.config.connect_timeout())
            .read_timeout(self.config.read_timeout())
            // Redirects are followed here, where it is known which host may see which secret.
            .redirect(Policy::none())
            .tls_certs_merge(certificates)
            .build()
            .map_err(RegistryError::Client)?;
        *http = Some(client.clone());
        Ok(client)
    }

    /// Whether requests to `url` are allowed at all.
    pub(crate) fn may_speak_to(&self, url: &Url) -> bool {
        let mirrors = self.config.mirrors.values().flatten();
        let plain_mirrors = mirrors
            .filter_map(|mirror| mirror.strip_prefix("http://"))
            .map(|mirror| mirror.split('/').next().unwrap_or(mirror));
        let userinfo = !url.username().is_empty() || url.password().is_some();
        match url.scheme() {
            _ if userinfo => false,
            "https" => true,
            "http" => {
                let plain = self.config.plain_http.iter().map(String::as_str);
                plain.chain(plain_mirrors).any(|host| is_host(host, url))
            }
            _ => false,
        }
    }

    /// The lock of the pull of one manifest, so that equal pulls are done once.
    pub(crate) fn pull_lock(&self, manifest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = pulls.get(manifest).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        pulls.insert(*manifest, Arc::downgrade(&lock));
        lock
    }
}
