//! The directory of temporary files of one open store.
//!
//! Each open store has its own directory in `tmp/` and holds a lock (`flock`) on it for as long as it
//! or one of its writers lives. A directory whose lock can be had belongs to nobody any more.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{failed, make_dir};
use crate::ContentError;

/// A locked directory for temporary files, removed when dropped.
#[derive(Debug)]
pub(super) struct Session {
    path: PathBuf,
    next: AtomicU64,
    // Closing it gives up the lock.
    _lock: File,
}

impl Session {
    /// Makes and locks a new directory in `temporary`.
    pub(super) fn begin(temporary: &Path) -> Result<Self, ContentError> {
        // Process ids are not unique where process-id namespaces share the directory.
        let mut number = 0_u64;
        loop {
            let path = temporary.join(format!("{}.{number}", std::process::id()));
            number += 1;
            if !make_dir(&path)? {
                continue;
            }
            // Between making and locking it, another process may take it for a stale one and
            // remove it: then this one is given up and the next is tried.
            let locked = File::open(&path).and_then(|lock| Ok(is_locked(&lock)?.then_some(lock)));
            match locked {
                Ok(Some(lock)) if is_at(&lock, &path) => {
                    return Ok(Self { path, next: AtomicU64::new(0), _lock: lock });
                }
                Ok(_) => {}
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed("lock", &path, source)),
            }
        }
    }

    /// A path for a new temporary file, never given before.
    pub(super) fn next_path(&self) -> PathBuf {
        self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "temporary directory left");
        }
    }
}

/// Removes the directories in `temporary` that no open store has.
pub(super) fn remove_stale(temporary: &Path) -> Result<(), ContentError> {
    let entries = fs::read_dir(temporary).map_err(|source| failed("list", temporary, source))?;
    for entry in entries {
        let path = entry.map_err(|source| failed("list", temporary, source))?.path();
        let removed = File::open(&path).and_then(|opened| remove_if_stale(&opened, &path));
        match removed {
            Ok(true) => tracing::info!(path = %path.display(), "removed stale temporary files"),
            Ok(false) => {}
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed("clean up", &path, source)),
        }
    }
    Ok(())
}

/// Removes the directory `opened`, which was found at `path`, unless it is in use or not there any more.
fn remove_if_stale(opened: &File, path: &Path) -> io::Result<bool> {
    // The name may lead to another store's new directory by now.
    if !opened.metadata()?.is_dir() || !is_locked(opened)? || !is_at(opened, path) {
        return Ok(false);
    }
    fs::remove_dir_all(path).map(|()| true)
}

/// Takes the lock, unless another holder has it.
fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(source),
    }
}

/// Whether `path` still leads to `file`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_name_that_was_given_anew_is_not_stale() {
        let temporary = tempfile::TempDir::new().expect("temporary directory");
        let old = Session::begin(temporary.path()).expect("begin a session");
        let path = old.path.clone();
        let opened = File::open(&path).expect("open");
        assert!(!remove_if_stale(&opened, &path).expect("in use"));
        drop(old);
        let new = Session::begin(temporary.path()).expect("begin a session");
        assert_eq!(new.path, path, "the name is free again");
        assert!(!remove_if_stale(&opened, &path).expect("another directory now"));
        File::create(new.next_path()).expect("it is still there");
    }

    #[test]
    fn no_session_is_taken_for_a_stale_one() {
        let temporary = tempfile::TempDir::new().expect("temporary directory");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    remove_stale(temporary.path()).expect("remove stale sessions");
                }
            });
            for _ in 0..2000 {
                let session = Session::begin(temporary.path()).expect("begin a session");
                let file = File::create(session.next_path());
                if file.is_err() {
                    done.store(true, Ordering::Relaxed);
                }
                file.expect("a session's directory stays as long as the session");
            }
            done.store(true, Ordering::Relaxed);
        });
        let left = fs::read_dir(temporary.path()).expect("list").count();
        assert_eq!(left, 0);
    }
}
