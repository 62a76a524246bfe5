//! The rows, as values.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kiln_types::api::{BuildStatus, ResourceLimits, SandboxStatus, SnapshotStatus};
use kiln_types::event::BuildFailure;
use kiln_types::{BuildId, DiffId, Digest, ImageDefinition, KeyId, SandboxId, SnapshotId, StepKey};

/// A layer whose tar and index are in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerRecord {
    /// Its diffID; also the digest of the blob.
    pub diff_id: DiffId,
    /// The size of its tar in bytes.
    pub size: u64,
    /// Whether its index depends on the layers below, and so is filed under the chainID.
    pub needs_parents: bool,
}

/// An image: manifest and config are blobs, byte for byte as they came or as they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Size of the manifest in bytes.
    pub manifest_size: u64,
    /// Digest of the config.
    pub config_digest: Digest,
    /// Size of the config in bytes.
    pub config_size: u64,
    /// Its layers, base first.
    pub layers: Vec<DiffId>,
    /// Definition key, when a build made it.
    pub definition_key: Option<Digest>,
    /// Resource defaults for who asks for the image by its digest. Each name has its own.
    pub defaults: TemplateDefaults,
    /// When the row was written.
    pub created_at: Timestamp,
}

/// Resource defaults that a name or an image carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TemplateDefaults {
    /// Virtual CPUs.
    pub vcpu: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// Key of the prefix that ends with the step.
    pub key: StepKey,
    /// The layer it made; `None` when it changed nothing on disk.
    pub layer: Option<DiffId>,
}

/// The result of a step, and when it was last of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepUse {
    /// Key of the prefix that ends with the step.
    pub key: StepKey,
    /// The layer it made; `None` when it changed nothing on disk.
    pub layer: Option<DiffId>,
    /// When it was made or last taken from the cache, to about an hour; `None` when that is not known.
    pub used_at: Option<Timestamp>,
}

/// A row that is not what was written, or a part of the database that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// What kind of damage it is.
    pub kind: DamageKind,
    /// Which row (`layers sha256:…`), or `database`.
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Kinds of [`Damage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DamageKind {
    /// The file itself: SQLite cannot read it, or says that its structure is broken.
    File,
    /// A row differs from what was written, is gone, or was never written.
    Row,
    /// A row names another one that is not there.
    Reference,
}

/// What a look at the whole database found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many rows were held against their checksums.
    pub rows: u64,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

/// What a base name resolved to, kept until a build asks to pull again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasePin {
    /// The base as the definition has it, in canonical form (`catalog:debian-12`, `reference:…`).
    pub base: String,
    /// The image it became.
    pub image: Digest,
    /// Which source answered, for the log.
    pub source: String,
    /// When.
    pub resolved_at: Timestamp,
}

/// A build job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRecord {
    /// Its id.
    pub id: BuildId,
    /// Its state.
    pub status: BuildStatus,
    /// The name the image is to get.
    pub name: Option<String>,
    /// What is built.
    pub definition: ImageDefinition,
    /// Definition key, once the base is resolved.
    pub definition_key: Option<Digest>,
    /// The result.
    pub image: Option<Digest>,
    /// How many steps were answered from the cache.
    pub steps_cached: u32,
    /// Why it failed.
    pub failure: Option<BuildFailure>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxRecord {
    /// Its id.
    pub id: SandboxId,
    /// Its name.
    pub name: Option<String>,
    /// Its state.
    pub status: SandboxStatus,
    /// The image as asked for.
    pub image: String,
    /// The image's digest.
    pub image_digest: Digest,
    /// Environment added at creation.
    pub env: BTreeMap<String, String>,
    /// Limits in force; every field is set.
    pub limits: ResourceLimits,
    /// Its slot on this host, which decides its host ids and its address.
    pub slot: Option<u32>,
    /// Its address while it runs.
    pub address: Option<String>,
    /// Why it is not running.
    pub reason: Option<String>,
    /// The driver that runs it.
    pub driver: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A named snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Its id.
    pub id: SnapshotId,
    /// Its name.
    pub name: String,
    /// Its state.
    pub status: SnapshotStatus,
    /// The image.
    pub image: Digest,
    /// The sandbox it was taken from.
    pub sandbox: SandboxId,
    /// Size of the layer with the change.
    pub layer_size: u64,
    /// Sockets left out.
    pub skipped_sockets: u64,
    /// When it was taken.
    pub created_at: Timestamp,
}

/// An API key; the secret itself is never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// Its id.
    pub id: KeyId,
    /// SHA-256 of the secret.
    pub secret_hash: Digest,
    /// What it is for.
    pub label: String,
    /// When it was made.
    pub created_at: Timestamp,
}
