//! What the metadata store could not do.

use kiln_types::error::ErrorCode;
use kiln_types::reference::ParseReferenceError;
use kiln_types::{DiffId, Digest, SandboxId};

/// One failed operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The database could not be opened.
    #[error("could not open the database {path}")]
    Open {
        /// The file or address.
        path: String,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// The database has no tables, and must have some.
    #[error("the database {path} is empty")]
    Empty {
        /// The file or address.
        path: String,
    },
    /// The database was written by a newer Kiln.
    #[error(
        "the database {path} was written by a newer version of Kiln (schema {found}, this one knows {known}); use that version, or restore a backup of the data directory that an older one has written"
    )]
    NewerSchema {
        /// The file or address.
        path: String,
        /// Its schema version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// A migration failed.
    #[error("could not bring the database {path} to the current schema")]
    Migrate {
        /// The file or address.
        path: String,
        /// The cause.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// A statement failed.
    #[error("the database could not {action}")]
    Query {
        /// The operation, as an infinitive: `insert sandbox sbx_…`.
        action: String,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A stored value is not what it must be.
    #[error("the database holds an invalid {what}: {value}")]
    Corrupt {
        /// Table and column.
        what: &'static str,
        /// The value, shortened.
        value: String,
    },
    /// A name is taken.
    #[error("{what} named `{name}` exists already")]
    NameInUse {
        /// `a sandbox`, `a snapshot`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name is not one that an image can have.
    #[error("the name of {what} is not valid")]
    InvalidName {
        /// `a snapshot`.
        what: &'static str,
        /// The cause, which has the name.
        #[source]
        source: ParseReferenceError,
    },
    /// All slots are in use.
    #[error("all {count} sandbox slots are in use")]
    NoSlot {
        /// How many there are.
        count: u32,
    },
    /// A slot is another sandbox's.
    #[error("sandbox slot {slot} belongs to another sandbox")]
    SlotInUse {
        /// The slot.
        slot: u32,
    },
    /// A row was to name an image that has no row (any more).
    #[error("image {digest} is not in the database")]
    ImageMissing {
        /// The image.
        digest: Digest,
    },
    /// An image cannot be removed because something was made from it.
    #[error("image {digest} is in use by {}", users.join(", "))]
    ImageInUse {
        /// The image.
        digest: Digest,
        /// Ids of sandboxes and names of snapshots, sorted.
        users: Vec<String>,
    },
    /// A row was to name a layer that has no row (any more).
    #[error("layer {diff_id} is not in the database")]
    LayerMissing {
        /// The layer.
        diff_id: DiffId,
    },
    /// A layer cannot be removed because an image has it.
    #[error("layer {diff_id} is in use by an image")]
    LayerInUse {
        /// The layer.
        diff_id: DiffId,
    },
    /// A sandbox that was to be changed is not there (any more).
    #[error("sandbox {id} is not in the database")]
    SandboxMissing {
        /// The sandbox.
        id: SandboxId,
    },
    /// The row that a list is to go on after is not there (any more).
    #[error(
        "the list cannot go on after `{cursor}`, which was removed; begin again without a cursor"
    )]
    UnknownCursor {
        /// The cursor.
        cursor: String,
    },
    /// A value is beyond what the database can hold.
    #[error("the database cannot hold {what} {value}")]
    OutOfRange {
        /// Table and column.
        what: &'static str,
        /// The value.
        value: u64,
    },
}

impl MetadataError {
    /// Whether the operation failed for want of disk space.
    pub fn is_storage_full(&self) -> bool {
        // SQLite's primary result code SQLITE_FULL.
        const FULL: &str = "13";
        let source = match self {
            Self::Open { source, .. } | Self::Query { source, .. } => source,
            Self::Migrate {
                source:
                    sqlx::migrate::MigrateError::Execute(source)
                    | sqlx::migrate::MigrateError::ExecuteMigration(source, _),
                ..
            } => source,
            _ => return false,
        };
        match source {
            sqlx::Error::Database(error) => error.code().is_some_and(|code| code == FULL),
            sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// The code that clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NameInUse { .. } => ErrorCode::NameInUse,
            Self::InvalidName { .. } => ErrorCode::InvalidReference,
            Self::ImageMissing { .. } => ErrorCode::ImageNotFound,
            Self::ImageInUse { .. } => ErrorCode::ImageInUse,
            Self::SandboxMissing { .. } => ErrorCode::SandboxNotFound,
            Self::UnknownCursor { .. } => ErrorCode::InvalidRequest,
            Self::NoSlot { .. } => ErrorCode::CapacityExhausted,
            _ if self.is_storage_full() => ErrorCode::StorageFull,
            _ => ErrorCode::Internal,
        }
    }
}
