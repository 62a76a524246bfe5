//! The messages of the HTTP API under `/v1`.
//!
//! Lists answer `{ "items": [...], "next": cursor? }`. Times are RFC 3339, sizes bytes, durations
//! milliseconds, unless a field's name says otherwise.

mod build;
mod exec;
mod files;
mod image;
mod sandbox;
mod snapshot;
mod store;
mod system;

pub use build::{BuildInfo, BuildRequest, BuildSource, BuildStatus};
pub use exec::{
    EXEC_CHANNEL_STDERR, EXEC_CHANNEL_STDIN, EXEC_CHANNEL_STDOUT, ExecClientMessage, ExecEvent,
    ExecRequest, ExecResult, ExecServerMessage, PtySize,
};
pub use files::{FileEntry, FileKind, FileList, FileQuery};
pub use image::{ImageInfo, ImageLayer, PullRequest, RemovedImage};
pub use sandbox::{CreateSandbox, ResourceLimits, SandboxInfo, SandboxStatus};
pub use snapshot::{CreateSnapshot, SnapshotInfo, SnapshotStatus};
pub use store::{
    Affected, Finding, FindingKind, FsckChecked, FsckReport, FsckRequest, GcItem, GcKind, GcReport,
    GcRequest, ImageUsage, Repair, SandboxUsage, SnapshotUsage, StoreUsage, UsageParts, WayOut,
};
pub use system::{Check, CheckStatus, DoctorReport, Health};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items of this page, newest first.
    pub items: Vec<T>,
    /// Pass as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
