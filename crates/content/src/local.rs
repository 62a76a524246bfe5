//! Blobs as files of one directory.
//!
//! `sha256/ab/<64 hex digits>` are the blobs, read-only; `tmp/<session>/` has what is being written.
//! A blob gets its name only when its bytes are durable, and its writer returns only when the name is.

mod hash;
mod session;
mod writeback;
mod writer;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_types::Digest;

use self::session::Session;
use self::writer::LocalWriter;
use crate::{BlobInfo, BlobStore, BlobWriter, ContentError, READ_LIMIT};

/// Blobs under `sha256/ab/…` of one directory. Clones share the directory; several stores, also of
/// different processes, may be open on one directory.
#[derive(Clone, Debug)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    session: Session,
}

impl LocalStore {
    /// Opens the store in `root`, making the directory (not its parents) when it is not there, and
    /// removes what processes that died left in `tmp/`.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, ContentError> {
        let root = std::path::absolute(root.as_ref())
            .map_err(|source| failed("resolve", root.as_ref(), source))?;
        let blobs = root.join("sha256");
        let temporary = root.join("tmp");
        let made = make_dir(&root)?;
        make_dir(&blobs)?;
        make_dir(&temporary)?;
        for shard in 0..=u8::MAX {
            make_dir(&blobs.join(hex::encode([shard])))?;
        }
        // All shards are durable from here on, so that a commit has only its own shard to sync.
        sync_dir(&blobs)?;
        sync_dir(&root)?;
        if let (true, Some(parent)) = (made, root.parent()) {
            sync_dir(parent)?;
        }
        session::remove_stale(&temporary)?;
        let session = Session::begin(&temporary)?;
        Ok(Self { inner: Arc::new(Inner { root, session }) })
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The path of a blob, whether it is there or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.inner.blob(digest)
    }
}

impl Inner {
    fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("sha256").join(&hex[..2]).join(hex)
    }

    fn info(&self, digest: &Digest) -> Result<BlobInfo, ContentError> {
        let path = self.blob(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                Ok(BlobInfo { digest: *digest, size: metadata.len() })
            }
            Ok(_) => Err(failed("use", &path, io::Error::other("it is not a regular file"))),
            Err(source) => Err(missing_or_failed("examine", digest, &path, source)),
        }
    }

    /// Makes the names of a blob's shard durable.
    fn sync_shard(&self, digest: &Digest) -> Result<(), ContentError> {
        let path = self.blob(digest);
        sync_dir(path.parent().expect("a blob's path has a shard above it"))
    }
}

impl BlobStore for LocalStore {
    fn writer(&self) -> Result<Box<dyn BlobWriter>, ContentError> {
        Ok(Box::new(LocalWriter::begin(Arc::clone(&self.inner))?))
    }

    fn put(&self, bytes: &[u8]) -> Result<BlobInfo, ContentError> {
        let digest = Digest::of(bytes);
        if self.prove(&digest, bytes.len() as u64).is_ok() {
            // Whoever stored it may not have come to this yet.
            self.inner.sync_shard(&digest)?;
            return Ok(BlobInfo { digest, size: bytes.len() as u64 });
        }
        let mut writer = LocalWriter::begin(Arc::clone(&self.inner))?;
        writer.append(bytes)?;
        Box::new(writer).commit(Some(&digest))
    }

    fn info(&self, digest: &Digest) -> Result<BlobInfo, ContentError> {
        self.inner.info(digest)
    }

    fn open(&self, digest: &Digest) -> Result<File, ContentError> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| missing_or_failed("open", digest, &path, source))
    }

    fn read(&self, digest: &Digest) -> Result<Vec<u8>, ContentError> {
        let path = self.path(digest);
        let file = self.open(digest)?;
        let size = file.metadata().map_err(|source| failed("examine", &path, source))?.len();
        let too_large = |size| ContentError::TooLarge { digest: *digest, size, limit: READ_LIMIT };
        if size > READ_LIMIT {
            return Err(too_large(size));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(READ_LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| failed("read", &path, source))?;
        if bytes.len() as u64 > READ_LIMIT {
            return Err(too_large(bytes.len() as u64));
        }
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            Err(ContentError::Corrupt { digest: *digest, found })
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.inner.blob(digest)
    }

    fn remove(&self, digest: &Digest) -> Result<(), ContentError> {
        let path = self.path(digest);
        kiln_failpoint::reach("blob.remove").map_err(|source| failed("remove", &path, source))?;
        // Not synced: a removal that a crash undoes leaves a blob that no row speaks of.
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path, source))
            }
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<BlobInfo>, ContentError> {
        let mut blobs = Vec::new();
        for shard in 0..=u8::MAX {
            let shard = hex::encode([shard]);
            let directory = self.inner.root.join("sha256").join(&shard);
            let entries =
                fs::read_dir(&directory).map_err(|source| failed("list", &directory, source))?;
            for entry in entries {
                let entry = entry.map_err(|source| failed("list", &directory, source))?;
                let digest = entry
                    .file_name()
                    .to_str()
                    .filter(|name| name.starts_with(&shard))
                    .and_then(|name| format!("sha256:{name}").parse::<Digest>().ok());
                let Some(digest) = digest else {
                    tracing::warn!(path = %entry.path().display(), "not a blob, left alone");
                    continue;
                };
                match self.info(&digest) {
                    Ok(info) => blobs.push(info),
                    // It was removed since its shard was read.
                    Err(ContentError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(blobs)
    }
}

/// Makes a directory for this user alone; `false` when it was there.
fn make_dir(path: &Path) -> Result<bool, ContentError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(failed("make the directory", path, source)),
    }
}

/// Makes the names in a directory durable.
fn sync_dir(path: &Path) -> Result<(), ContentError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| failed("sync the directory", path, source))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ContentError {
    ContentError::Io { action, path: path.to_owned(), source }
}

fn missing_or_failed(
    action: &'static str,
    digest: &Digest,
    path: &Path,
    source: io::Error,
) -> ContentError {
    if source.kind() == io::ErrorKind::NotFound {
        ContentError::NotFound { digest: *digest }
    } else {
        failed(action, path, source)
    }
}
