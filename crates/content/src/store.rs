//! The interface of a blob store.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use kiln_types::Digest;

use crate::ContentError;

/// The largest blob that [`BlobStore::read`] reads, in bytes.
pub const READ_LIMIT: u64 = 64 << 20;

/// What is known of a blob without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A store of blobs by digest. All calls block; callers move them off async threads.
///
/// Life of a blob: `writer` → bytes → `commit` (which makes it durable and visible at once, whole) →
/// any number of reads → `remove`. Committing what is already there is no error and keeps the old one,
/// unless the old one has the wrong size: then the new one, whose digest was just computed, takes its place.
pub trait BlobStore: Send + Sync + fmt::Debug {
    /// Begins a new blob. Dropping the writer leaves nothing.
    fn writer(&self) -> Result<Box<dyn BlobWriter>, ContentError>;

    /// Stores `bytes` and gives their digest.
    fn put(&self, bytes: &[u8]) -> Result<BlobInfo, ContentError> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(|source| ContentError::Io {
            action: "write",
            path: writer.path(),
            source,
        })?;
        writer.commit(None)
    }

    /// Size of a blob; `NotFound` when it is not there.
    fn info(&self, digest: &Digest) -> Result<BlobInfo, ContentError>;

    /// Proves that a blob is there with the size it must have, without reading it.
    fn prove(&self, digest: &Digest, size: u64) -> Result<(), ContentError> {
        let info = self.info(digest)?;
        if info.size == size {
            Ok(())
        } else {
            Err(ContentError::WrongSize { digest: *digest, expected: size, found: info.size })
        }
    }

    /// Opens a blob for reading.
    fn open(&self, digest: &Digest) -> Result<File, ContentError>;

    /// Reads a whole blob of at most [`READ_LIMIT`] bytes, verified against its digest: `Corrupt` when
    /// its bytes are not what was stored, `TooLarge` when it is larger.
    fn read(&self, digest: &Digest) -> Result<Vec<u8>, ContentError>;

    /// Reads a whole blob of any size, in constant memory, and gives its size: `Corrupt` when its bytes
    /// are not what was stored. `progress` is told how many more bytes were read.
    fn verify(&self, digest: &Digest, progress: &mut dyn FnMut(u64)) -> Result<u64, ContentError> {
        crate::verify::verify(&self.open(digest)?, &self.path(digest), digest, progress)
    }

    /// The path of a blob on this host, for the kernel to mount from.
    fn path(&self, digest: &Digest) -> PathBuf;

    /// Removes a blob; removing what is not there is no error.
    fn remove(&self, digest: &Digest) -> Result<(), ContentError>;

    /// Every blob of the store, in no order.
    fn list(&self) -> Result<Vec<BlobInfo>, ContentError>;
}

/// A blob being written. Bytes are hashed as they pass.
pub trait BlobWriter: Write + Send + fmt::Debug {
    /// The temporary file, for error messages.
    fn path(&self) -> PathBuf;

    /// The temporary file itself, to read back what was written (for instance to index it). It has
    /// what was written up to the last `flush`; moving its position does not disturb later writes.
    fn file(&self) -> &File;

    /// The digest of all that was written so far.
    fn digest(&self) -> Digest;

    /// Makes the blob durable and visible. With `expected`, refuses any other content with
    /// `WrongDigest`. When it fails, nothing is stored.
    fn commit(self: Box<Self>, expected: Option<&Digest>) -> Result<BlobInfo, ContentError>;
}
