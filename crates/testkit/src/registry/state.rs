//! What a registry has, and what it saw.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::HeaderMap;
use bytes::Bytes;
use kiln_types::Digest;

use super::access::{Access, authorization, is_basic};
use super::fault::{Action, Fault};

/// A request that a registry got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `Range` header.
    pub range: Option<String>,
}

/// A manifest: its media type and its bytes.
pub(super) type Manifest = (String, Bytes);

#[derive(Debug)]
pub(super) struct State {
    pub(super) access: Access,
    pub(super) token_address: SocketAddr,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By repository and digest.
    blobs: HashMap<(String, String), Bytes>,
    /// By repository and tag or digest.
    manifests: HashMap<(String, String), Manifest>,
    faults: Vec<Fault>,
    tokens: HashSet<String>,
    issued: usize,
    seen: Vec<Seen>,
}

impl State {
    pub(super) fn new(access: Access, token_address: SocketAddr) -> Self {
        Self { access, token_address, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put_blob(&self, repository: &str, digest: Digest, bytes: Vec<u8>) {
        let key = (repository.to_owned(), digest.to_string());
        self.lock().blobs.insert(key, bytes.into());
    }

    pub(super) fn remove_blob(&self, repository: &str, digest: &Digest) {
        self.lock().blobs.remove(&(repository.to_owned(), digest.to_string()));
    }

    pub(super) fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.lock().blobs.get(&(repository.to_owned(), digest.to_owned())).cloned()
    }

    pub(super) fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) {
        let digest = Digest::of(&bytes).to_string();
        let manifest = (media_type.to_owned(), Bytes::from(bytes));
        let mut inner = self.lock();
        inner.manifests.insert((repository.to_owned(), digest), manifest.clone());
        inner.manifests.insert((repository.to_owned(), reference.to_owned()), manifest);
    }

    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<Manifest> {
        self.lock().manifests.get(&(repository.to_owned(), reference.to_owned())).cloned()
    }

    pub(super) fn add_fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// The failure that is planned for a path, which is counted.
    pub(super) fn take_fault(&self, path: &str) -> Option<Action> {
        let mut inner = self.lock();
        let fault =
            inner.faults.iter_mut().find(|fault| fault.times > 0 && path.contains(&fault.path))?;
        fault.times -= 1;
        Some(fault.action.clone())
    }

    pub(super) fn issue_token(&self, scope: &str) -> String {
        let mut inner = self.lock();
        inner.issued += 1;
        let token = format!("token-{}-{scope}", inner.issued);
        inner.tokens.insert(token.clone());
        token
    }

    pub(super) fn expire_tokens(&self) {
        self.lock().tokens.clear();
    }

    /// Whether a request may do this in a repository.
    pub(super) fn allows(&self, headers: &HeaderMap, repository: &str) -> bool {
        match &self.access {
            Access::Open => true,
            Access::Basic { user, password } => is_basic(headers, user, password),
            Access::Bearer { .. } => authorization(headers)
                .and_then(|value| value.strip_prefix("Bearer "))
                .is_some_and(|token| {
                    let scope = format!("-repository:{repository}:pull");
                    self.lock().tokens.contains(token) && token.ends_with(&scope)
                }),
        }
    }

    pub(super) fn see(&self, seen: Seen) {
        self.lock().seen.push(seen);
    }

    pub(super) fn requests(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }
}
