//! Directories that systems are made in before they are packed, in the directory for temporary files.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PREFIX: &str = "kiln-base-";

/// Such a directory, which is removed when this value is dropped. Whoever has one holds a lock on it; one
/// whose lock can be had is what a daemon left that was killed.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    pub(super) fn new() -> io::Result<Self> {
        Self::in_directory(&std::env::temp_dir())
    }

    fn in_directory(parent: &Path) -> io::Result<Self> {
        remove_stale(parent)?;
        loop {
            let path = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?.keep();
            // Before it is locked, somebody else may take it for a stale one.
            let locked = File::open(&path).map(|lock| (lock.try_lock().is_ok(), lock));
            match locked {
                Ok((true, lock)) if path.exists() => {
                    // apt fetches as a user of its own, who has to get through.
                    fs::set_permissions(&path, Permissions::from_mode(0o711))?;
                    return Ok(Self { path, _lock: lock });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(std::mem::take(&mut self.path));
    }
}

/// Removes what daemons left that were killed.
pub(crate) fn clean_up() {
    if let Err(error) = remove_stale(&std::env::temp_dir()) {
        tracing::warn!(%error, "the directory for temporary files could not be cleaned up");
    }
}

/// Only directories of this user.
fn remove_stale(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let own = entry.metadata().is_ok_and(|found| {
            found.is_dir() && found.uid() == rustix::process::geteuid().as_raw()
        });
        let Some(lock) = own.then(|| File::open(entry.path()).ok()).flatten() else { continue };
        match lock.try_lock() {
            Ok(()) => {
                tracing::info!(path = %entry.path().display(), "removing what a daemon left");
                remove(entry.path());
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Removes a directory, on a thread of its own: processes that were killed may still be on their way
/// out and hold on to it for a moment.
fn remove(dir: PathBuf) {
    std::thread::spawn(move || {
        let mut attempts = 0;
        while let Err(error) = fs::remove_dir_all(&dir) {
            attempts += 1;
            if error.kind() == io::ErrorKind::NotFound {
                break;
            }
            if attempts == 100 {
                tracing::warn!(dir = %dir.display(), %error, "a directory could not be removed");
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_nobody_holds_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let held = Scratch::in_directory(parent.path()).unwrap();
        let stale = parent.path().join("kiln-base-stale");
        fs::create_dir_all(stale.join("usr/bin")).unwrap();
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        let next = Scratch::in_directory(parent.path()).unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while stale.exists() {
            assert!(Instant::now() < deadline, "it is still there");
            std::thread::yield_now();
        }
        assert!(held.path().exists() && next.path().exists() && other.exists());
        let path = next.path().to_owned();
        drop(next);
        while path.exists() {
            assert!(Instant::now() < deadline, "it is still there");
            std::thread::yield_now();
        }
    }
}
