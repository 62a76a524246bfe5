//! The host's CA bundle, as sandboxes are shown it.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use kiln_types::SandboxId;
use rustix::fs::{Mode, OFlags};

use super::prepared::launcher;
use crate::launcher::Launcher;
use crate::runtime::RuntimeError;

/// The file, and the launcher's copy of it.
#[derive(Debug)]
pub(super) struct CaBundle {
    path: PathBuf,
    copy: Mutex<Option<Copy>>,
}

/// A copy of the file as it was.
#[derive(Debug)]
struct Copy {
    original: Identity,
    name: String,
    /// The launcher that keeps it.
    keeper: u64,
}

/// What changes with the content of a file: device, inode, length, and when it was last written.
type Identity = (u64, u64, u64, i64, i64);

impl CaBundle {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, copy: Mutex::default() }
    }

    /// The launcher's name for a copy of the bundle as it is now: sandboxes that are started after an
    /// update of the host have the new one. Blocks.
    ///
    /// The copy is that of the launcher of this generation, if one is given and it still counts; else
    /// that of the present one.
    pub(super) fn copy(
        &self,
        id: SandboxId,
        keeper: &Launcher,
        generation: Option<u64>,
    ) -> Result<String, RuntimeError> {
        let failed = |source| RuntimeError::State {
            action: "open the CA bundle",
            path: self.path.clone(),
            source,
        };
        let (file, found) = self.open().map_err(failed)?;
        let original = (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec());
        // Held over the copying: one copy is enough for all that start at the same time.
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        match &*copy {
            Some(copy)
                if copy.original == original
                    && copy.keeper == generation.unwrap_or_else(|| keeper.generation()) =>
            {
                Ok(copy.name.clone())
            }
            _ => {
                let name =
                    keeper.keep(file.as_fd()).map_err(launcher(id, "copied the CA bundle"))?;
                let keeper = keeper.generation();
                *copy = Some(Copy { original, name: name.clone(), keeper });
                Ok(name)
            }
        }
    }

    /// Never waits for a writer, as opening a fifo would.
    fn open(&self) -> io::Result<(File, Metadata)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&self.path, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if metadata.is_file() {
            Ok((file, metadata))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
        }
    }
}
