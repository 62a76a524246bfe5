//! A blob on its way into the directory.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_types::Digest;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::hash::Hash;
use super::writeback::Writeback;
use super::{Inner, failed};
use crate::{BlobInfo, BlobWriter, ContentError};

/// Bytes gathered before they go to the file.
const BUFFER: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct LocalWriter {
    store: Arc<Inner>,
    path: PathBuf,
    file: File,
    hash: Hash,
    /// Accepted and hashed, but not yet in the file.
    pending: Vec<u8>,
    /// Where in the file `pending` goes. Writes name their place, so that readers of the same file
    /// description may move its position, and a failed write may be tried again.
    written: u64,
    writeback: Writeback,
}

impl LocalWriter {
    pub(super) fn begin(store: Arc<Inner>) -> Result<Self, ContentError> {
        let path = store.session.next_path();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| failed("create", &path, source))?;
        let writer = Self {
            store,
            path,
            file,
            hash: Hash::new(),
            pending: Vec::new(),
            written: 0,
            writeback: Writeback::default(),
        };
        kiln_failpoint::reach("blob.created")
            .map_err(|source| failed("create", &writer.path, source))?;
        Ok(writer)
    }

    /// Writes all of `bytes`.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        self.write_all(bytes).map_err(|source| failed("write", &self.path, source))
    }

    /// Gives the file the name of its content.
    fn publish(&mut self, digest: &Digest, size: u64) -> Result<(), ContentError> {
        let target = self.store.blob(digest);
        match self.store.info(digest) {
            Ok(info) if info.size == size => return Ok(()),
            Ok(info) => {
                tracing::warn!(%digest, found = info.size, expected = size, "replacing a blob of the wrong size");
                self.make_durable()?;
                return fs::rename(&self.path, &target)
                    .map_err(|source| failed("replace", &target, source));
            }
            Err(ContentError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.make_durable()?;
        kiln_failpoint::reach("blob.synced").map_err(|source| failed("store", &target, source))?;
        match renameat_with(CWD, &self.path, CWD, &target, RenameFlags::NOREPLACE) {
            // Somebody else stored the same content meanwhile.
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(errno) => Err(failed("store", &target, errno.into())),
        }
    }

    fn make_durable(&mut self) -> Result<(), ContentError> {
        kiln_failpoint::reach("blob.written")
            .and_then(|()| self.writeback.finish())
            .and_then(|()| self.file.set_permissions(Permissions::from_mode(0o400)))
            .and_then(|()| self.file.sync_all())
            .map_err(|source| failed("sync", &self.path, source))
    }
}

impl Write for LocalWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        let accepted = if bytes.len() >= BUFFER {
            let count = self.file.write_at(bytes, self.written)?;
            self.written += count as u64;
            self.writeback.progress(&self.file, self.written);
            count
        } else {
            self.pending.extend_from_slice(bytes);
            bytes.len()
        };
        self.hash.update(&bytes[..accepted]);
        Ok(accepted)
    }

    fn flush(&mut self) -> io::Result<()> {
        kiln_failpoint::reach("blob.flush")?;
        self.file.write_all_at(&self.pending, self.written)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        self.writeback.progress(&self.file, self.written);
        Ok(())
    }
}

impl BlobWriter for LocalWriter {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn file(&self) -> &File {
        &self.file
    }

    fn digest(&self) -> Digest {
        self.hash.digest()
    }

    fn commit(mut self: Box<Self>, expected: Option<&Digest>) -> Result<BlobInfo, ContentError> {
        let found = std::mem::replace(&mut self.hash, Hash::new()).finish();
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(ContentError::WrongDigest { expected: *expected, found });
        }
        self.flush().map_err(|source| failed("write", &self.path, source))?;
        self.publish(&found, self.written)?;
        kiln_failpoint::reach("blob.named")
            .map_err(|source| failed("store", &self.path, source))?;
        self.store.sync_shard(&found)?;
        kiln_failpoint::pass("blob.durable");
        Ok(BlobInfo { digest: found, size: self.written })
    }
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        remove_quietly(&self.path);
    }
}

fn remove_quietly(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "temporary file left");
        }
        _ => {}
    }
}
