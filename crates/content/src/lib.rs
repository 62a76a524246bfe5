//! Content-addressed blobs: what is stored under a digest has that digest.
//!
//! Owns: the `BlobStore` interface, its local implementation, verified and crash-safe ingest.
//! Refuses: to know what a blob means, and to overwrite a sound one.
#![forbid(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod local;
mod store;
mod verify;

pub use error::ContentError;
pub use local::LocalStore;
pub use store::{BlobInfo, BlobStore, BlobWriter, READ_LIMIT};
