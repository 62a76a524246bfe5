//! The store as a whole: what is damaged, what is not needed, what takes how much room.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/store/fsck`: reads everything that is stored and holds it against what it must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FsckRequest {
    /// Whether to repair what can be repaired.
    pub repair: bool,
}

/// What was looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FsckReport {
    /// Whether nothing is wrong (any more).
    pub clean: bool,
    /// What was looked at.
    pub checked: FsckChecked,
    /// What is wrong, in the order in which it was found.
    pub findings: Vec<Finding>,
    /// Bytes of files that the repair removed.
    pub bytes_removed: u64,
    /// How long it took.
    pub duration_ms: u64,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FsckChecked {
    /// Blobs that were read and hashed: layers' tars, manifests, configs.
    pub blobs: u64,
    /// The bytes of these.
    pub bytes: u64,
    /// Indexes that were made again and compared.
    pub indexes: u64,
    /// Images whose documents and rows were held against each other.
    pub images: u64,
    /// Rows of the database whose checksums were verified.
    pub rows: u64,
    /// Files whose place and owner were looked at.
    pub files: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// What kind of damage it is.
    pub kind: FindingKind,
    /// What is damaged: a digest, an id, `table key`, or a path below the data directory.
    pub subject: String,
    /// The file, when it is one; below the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What depends on it.
    #[serde(default, skip_serializing_if = "Affected::is_empty")]
    pub affects: Affected,
    /// The way out.
    pub way_out: WayOut,
    /// What the repair has done about it; absent when none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
}

/// The kinds of damage. Names are never changed or used again.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A blob's bytes are not those that its digest stands for.
    BlobDamaged,
    /// A blob that a row speaks of is not there.
    BlobMissing,
    /// A blob could not be read.
    BlobUnreadable,
    /// An index is not the one that its layer's tar gives.
    IndexDamaged,
    /// An index that an image needs is not there.
    IndexMissing,
    /// A manifest, its config and the image's rows do not belong together.
    ImageInconsistent,
    /// The database file is damaged, or could not be read.
    DatabaseDamaged,
    /// A row is not as it was written.
    RowDamaged,
    /// A row names something that is not there.
    ReferenceDangling,
    /// A blob or an index that nothing needs.
    FileUnreferenced,
    /// A file that is none of Kiln's, where Kiln keeps its own.
    FileForeign,
    /// A temporary file that nobody writes any more.
    FileTemporary,
    /// What is kept unpacked of a layer is not what its files say.
    UnpackedDamaged,
    /// A sandbox's disk is not there.
    UpperMissing,
    /// A disk that is no sandbox's.
    UpperUnreferenced,
    /// A build's log without the build.
    LogUnreferenced,
}

/// What depends on something that is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Affected {
    /// Digests of images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Names of these images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Names of snapshots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<String>,
    /// Ids of sandboxes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sandboxes: Vec<String>,
}

impl Affected {
    /// Whether nothing depends on it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What can be done about damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WayOut {
    /// Nothing is lost: a repair makes it again from what is here, or removes what is not needed.
    Repair,
    /// A repair fetches it again from the registry that it came from.
    PullAgain,
    /// It was made here: build it again. Until then, what needs it is refused.
    BuildAgain,
    /// It cannot be made again. What needs it is refused; what does not is not touched.
    Lost,
}

/// What a repair has done about one finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Repair {
    /// Whether nothing is wrong with it any more.
    pub repaired: bool,
    /// What was done, or why nothing could be.
    pub detail: String,
    /// Bytes that were removed.
    pub bytes_removed: u64,
}

/// `POST /v1/store/gc`: removes what nothing needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GcRequest {
    /// Only say what would be removed.
    pub dry_run: bool,
    /// Remove all that nothing needs, however young it is, and the whole build cache.
    pub all: bool,
    /// Keep what was used within so many hours, at most a million; the configuration's `gc.keep_hours`
    /// when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 1_000_000)]
    pub keep_hours: Option<u32>,
}

/// What was removed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcReport {
    /// Whether nothing was removed because only the list was asked for.
    pub dry_run: bool,
    /// The single things.
    pub items: Vec<GcItem>,
    /// Bytes on the disk, as `du` counts them, that they took together.
    pub bytes: u64,
}

/// One thing that nothing needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcItem {
    /// What it is.
    pub kind: GcKind,
    /// Which one: a digest, a step key, a build's id, a path below the data directory.
    pub subject: String,
    /// Bytes on the disk, as `du` counts them; rows count nothing, since the database keeps their room.
    pub bytes: u64,
}

/// Kinds of what can be removed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum GcKind {
    /// An image without a name that no snapshot and no sandbox uses; its files are counted on their own.
    Image,
    /// The remembered result of a build step.
    Step,
    /// A layer's tar.
    Layer,
    /// A manifest or config.
    Document,
    /// An index.
    Index,
    /// What is kept unpacked of a layer.
    Unpacked,
    /// A blob that no row speaks of: what a crash left.
    Leftover,
    /// A build that has ended, with its log.
    Build,
    /// A build's log without the build.
    Log,
    /// What a repair moved aside.
    Quarantined,
}

/// `GET /v1/store/usage`: what takes how much room. All sizes are bytes on the disk, as `du` counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreUsage {
    /// Everything in the data directory.
    pub total: u64,
    /// The parts of `total`.
    pub parts: UsageParts,
    /// Images, newest first.
    pub images: Vec<ImageUsage>,
    /// Snapshots, newest first.
    pub snapshots: Vec<SnapshotUsage>,
    /// Sandboxes, newest first.
    pub sandboxes: Vec<SandboxUsage>,
    /// What `gc` would free now.
    pub reclaimable: u64,
    /// What `gc` with `all` would free now.
    pub reclaimable_all: u64,
}

/// What the bytes of the data directory are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageParts {
    /// Files of images: tars, indexes, manifests, configs; shared ones once.
    pub images: u64,
    /// Layers that only the build cache has.
    pub build_cache: u64,
    /// What is kept unpacked of layers.
    pub unpacked: u64,
    /// Blobs and indexes that no row speaks of.
    pub unreferenced: u64,
    /// The disks of sandboxes.
    pub sandboxes: u64,
    /// Logs of builds.
    pub logs: u64,
    /// The database.
    pub database: u64,
    /// What a repair moved aside.
    pub quarantine: u64,
    /// Directories, sockets, locks, keys, files being written, and what else lies there.
    pub other: u64,
}

/// What an image takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageUsage {
    /// Its digest.
    pub digest: String,
    /// Its names.
    pub names: Vec<String>,
    /// All its files.
    pub total: u64,
    /// Those of them that no other image has: what its removal frees.
    pub unique: u64,
    /// Those that other images have too.
    pub shared: u64,
}

/// What a snapshot takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotUsage {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// All files of its image.
    pub total: u64,
    /// Those of them that no other image has.
    pub unique: u64,
}

/// What a sandbox takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxUsage {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What its disk takes: all that it has changed.
    pub bytes: u64,
    /// Files and directories on it.
    pub inodes: u64,
}
