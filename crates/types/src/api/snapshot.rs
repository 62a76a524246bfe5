//! Named snapshots.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::digest::Digest;
use crate::id::{SandboxId, SnapshotId};

/// `POST /v1/snapshots`: saves a sandbox's disk as a named, permanent image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// The sandbox, by id or name. It may be running or stopped.
    pub sandbox: String,
    /// The snapshot's name; also the image's.
    pub name: String,
}

/// A named snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotInfo {
    /// Its id.
    #[schema(value_type = String)]
    pub id: SnapshotId,
    /// Its name.
    pub name: String,
    /// Its state.
    pub status: SnapshotStatus,
    /// The image that it is.
    #[schema(value_type = String)]
    pub image: Digest,
    /// The sandbox it was taken from.
    #[schema(value_type = String)]
    pub sandbox: SandboxId,
    /// The size of the layer that holds the change, in bytes.
    pub layer_size: u64,
    /// Sockets of the sandbox that a layer cannot hold and that were left out.
    pub skipped_sockets: u64,
    /// When it was taken.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// The state of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStatus {
    /// Being made.
    Building,
    /// Usable.
    Ready,
    /// It could not be made.
    Failed,
}
