//! What Kiln knows beyond its blobs: images, names, steps, builds, sandboxes, snapshots, keys.
//!
//! Owns: the `MetadataStore` interface, its records, and the SQLite implementation with migrations.
//! Refuses: to touch blobs, uppers or processes. A row is written last, when what it speaks of is
//! durable, and removed first.
#![forbid(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod record;
mod sqlite;
mod store;

pub use error::MetadataError;
pub use record::{
    ApiKeyRecord, BasePin, BuildRecord, Damage, DamageKind, ImageRecord, LayerRecord,
    SandboxRecord, SnapshotRecord, StepRecord, StepUse, TemplateDefaults, Verified,
};
pub use sqlite::SqliteStore;
pub use store::MetadataStore;
