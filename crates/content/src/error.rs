//! What the store could not do.

use std::io;
use std::path::PathBuf;

use kiln_types::{Digest, ErrorCode};

/// One failed operation on the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// A file operation failed.
    #[error("could not {action} {}", path.display())]
    Io {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause; `StorageFull` when the disk is full.
        #[source]
        source: io::Error,
    },
    /// No blob with this digest.
    #[error("blob {digest} is not in the store")]
    NotFound {
        /// The digest that was asked for.
        digest: Digest,
    },
    /// The blob is there, but not with the size it must have.
    #[error("blob {digest} has {found} bytes in the store, not {expected}")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// The size it must have.
        expected: u64,
        /// The size it has.
        found: u64,
    },
    /// What was written is not what was announced; nothing was stored.
    #[error("the content has digest {found}, not {expected}")]
    WrongDigest {
        /// What was announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The bytes on disk are not those that were stored. The blob must be removed and made again.
    #[error(
        "blob {digest} is damaged: its content has digest {found}; remove it and obtain it again"
    )]
    Corrupt {
        /// The blob.
        digest: Digest,
        /// What its bytes are now.
        found: Digest,
    },
    /// The blob is too large to be read into memory at once.
    #[error("blob {digest} has {size} bytes; only blobs of up to {limit} bytes are read whole")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The largest size that is read whole, in bytes.
        limit: u64,
    },
}

impl ContentError {
    /// Whether the operation failed for want of disk space or quota.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ))
    }

    /// The code that clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } | Self::WrongSize { .. } | Self::Corrupt { .. } => {
                ErrorCode::StoreCorrupt
            }
            _ if self.is_storage_full() => ErrorCode::StorageFull,
            _ => ErrorCode::Internal,
        }
    }
}
