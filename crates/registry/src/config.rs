//! How registries are reached.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The configuration of a [`crate::RegistryClient`]. Hosts are written as in references: `host` or
/// `host:port`, `docker.io` for Docker Hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// For each registry the mirrors that are asked before it, in order: `[http://]host[:port][/prefix]`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts that are spoken to without TLS.
    pub plain_http: Vec<String>,
    /// Credentials by host.
    pub credentials: BTreeMap<String, Credential>,
    /// A Docker `config.json` with further credentials (its `auths`); those above go first.
    pub docker_config: Option<PathBuf>,
    /// Files with certificates (PEM) of authorities that are trusted besides the system's own.
    pub ca_certificates: Vec<PathBuf>,
    /// How long a connection may take to come about, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a server may be silent, in milliseconds.
    pub read_timeout_ms: u64,
    /// How often a request is made before it has failed.
    pub attempts: u32,
    /// The pause after the first failed attempt, in milliseconds; it doubles with every further one.
    pub backoff_ms: u64,
    /// The longest pause that a server may ask for, in milliseconds.
    pub max_retry_after_ms: u64,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            plain_http: Vec::new(),
            credentials: BTreeMap::new(),
            docker_config: None,
            ca_certificates: Vec::new(),
            connect_timeout_ms: 10_000,
            read_timeout_ms: 60_000,
            attempts: 5,
            backoff_ms: 250,
            max_retry_after_ms: 60_000,
        }
    }
}

impl RegistryConfig {
    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn read_timeout(&self) -> Duration {
        Duration::from_millis(self.read_timeout_ms)
    }
}

/// A user and what proves them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The user.
    pub username: String,
    /// The password, or an access token that stands for it.
    pub password: String,
    /// Further hosts that issue tokens for this registry and are sent the credentials for that.
    #[serde(default)]
    pub token_hosts: Vec<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .field("token_hosts", &self.token_hosts)
            .finish_non_exhaustive()
    }
}
