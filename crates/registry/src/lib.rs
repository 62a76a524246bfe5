//! The client of OCI registries (OCI distribution specification 1.1, pull side).
//!
//! Owns: which host is asked (mirrors, then the registry), how (TLS, credentials, tokens, redirects,
//! retries), and that nothing gets in which does not have the digest and the size it was asked by.
//! Refuses: to keep blobs itself (the image store does), to send a secret to any host but the one it is
//! for, to speak plain HTTP to a host that the configuration does not name, and to buffer a layer.
#![forbid(unsafe_code)]

mod auth;
mod blob;
mod client;
mod config;
mod credentials;
mod document;
mod endpoint;
mod error;
mod feed;
mod platform;
mod progress;
mod pull;
mod request;
mod retry;

pub use client::RegistryClient;
pub use config::{Credential, RegistryConfig};
pub use error::{Asked, RegistryError};
pub use progress::PullProgress;
pub use pull::default_name;
