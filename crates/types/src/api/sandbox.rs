//! Sandboxes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::digest::Digest;
use crate::id::SandboxId;

/// `POST /v1/sandboxes`: makes and starts a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSandbox {
    /// Image name, digest, snapshot name, or a catalog name (which is obtained if need be).
    pub image: String,
    /// A name to call it by, unique among sandboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Added to the image's environment, for every process of the sandbox.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Limits; the template's, or the configured defaults, where absent.
    #[serde(default)]
    pub limits: ResourceLimits,
    /// The driver that is to run it (`native`, `runc`, `crun`, `runsc`); the configured one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// What a sandbox may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimits {
    /// CPU time as a number of CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<u32>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Number of processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Size of the disk that takes what the sandbox changes, in MiB. One file for each 16 KiB of it.
    /// In a sandbox's own description it is absent where the host does not bound disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u32>,
}

/// A sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxInfo {
    /// Its id.
    #[schema(value_type = String)]
    pub id: SandboxId,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its state.
    pub status: SandboxStatus,
    /// The image it was made from, as asked for.
    pub image: String,
    /// The digest of that image.
    #[schema(value_type = String)]
    pub image_digest: Digest,
    /// Environment that was added at creation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Its limits, in force.
    pub limits: ResourceLimits,
    /// The driver that runs it.
    #[serde(default = "native")]
    pub driver: String,
    /// Its address in the host's sandbox network, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Why it is not running, when it stopped by itself or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What runs sandboxes where nothing else is said, as by daemons from before there was a choice.
fn native() -> String {
    "native".to_owned()
}

/// The state of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxStatus {
    /// Being started.
    Starting,
    /// Its agent answers.
    Running,
    /// Not running; its disk is kept.
    Stopped,
    /// Being removed.
    Removing,
}
