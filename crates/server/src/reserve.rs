//! Room on the disk that is kept for removals.
//!
//! Whoever removes something writes first: a row, a page of the database's log, a new name for what is
//! on its way out. On a full disk not even that would work, and nothing would ever make room again. So a
//! file holds some room, and lets go of it when a removal, or the daemon's start, meets a full disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kiln_types::ErrorCode;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tokio::sync::Mutex;

use crate::problem::ApiError;

/// The name of the file in the data directory.
const FILE: &str = "reserve";
/// How much is kept.
const SIZE: u64 = 8 << 20;
/// Less is not worth a file.
const LEAST: u64 = 256 << 10;
/// A start with less free room than this lets go of the reserve first.
const SCARCE: u64 = 4 << 20;

/// The reserve of one data directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// Held by whoever has let go of it: it is made again when the last of them is done.
    lent: Mutex<()>,
}

impl Reserve {
    /// The reserve in `data_dir`. Nothing is done yet.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join(FILE), lent: Mutex::new(()) }
    }

    /// Lets go of it if the disk is about full: a start writes, too.
    pub(crate) fn release_if_scarce(&self) {
        if self.is_scarce() && self.release() {
            tracing::warn!(path = %self.path.display(), "the disk is about full: using the reserve to start");
        }
    }

    fn is_scarce(&self) -> bool {
        let directory = self.path.parent().unwrap_or(&self.path);
        let free = statvfs(directory).map(|found| found.f_bavail * found.f_frsize);
        free.is_ok_and(|free| free < SCARCE)
    }

    /// Makes it as large as it is to be, or as there is room for.
    pub(crate) fn fill(&self) {
        if let Err(error) = self.try_fill() {
            tracing::warn!(path = %self.path.display(), %error, "there is no room for the reserve that removals on a full disk need");
        }
    }

    /// Does a removal; when the disk is too full for it, once more with the room of the reserve.
    pub(crate) async fn lend<T, F>(&self, removal: impl Fn() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        match removal().await {
            Err(error) if error.problem.code == ErrorCode::StorageFull => {}
            done => {
                if done.is_ok() && !self.is_full() && self.lent.try_lock().is_ok() {
                    self.fill();
                }
                return done;
            }
        }
        let _lent = self.lent.lock().await;
        if self.release() {
            tracing::warn!("the disk is full: using the reserve for a removal");
        }
        let done = removal().await;
        self.fill();
        done
    }

    /// Does a removal whose answer says what went, so that it must not be done in two parts: with the
    /// room of the reserve from the start, if the disk is about full.
    pub(crate) async fn lend_first<T>(
        &self,
        removal: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let lent = self.lent.lock().await;
        if self.is_scarce() && self.release() {
            tracing::warn!("the disk is about full: using the reserve for a removal");
        }
        let done = removal.await;
        if !self.is_full() {
            self.fill();
        }
        drop(lent);
        done
    }

    fn is_full(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.blocks() * 512 >= SIZE)
    }

    fn try_fill(&self) -> io::Result<()> {
        if self.is_full() {
            return Ok(());
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)?;
        let mut size = SIZE;
        loop {
            match fallocate(&file, FallocateFlags::empty(), 0, size) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::NOSPC) if size > LEAST => size /= 2,
                Err(error) => {
                    // What was allocated before it failed would be neither kept nor free.
                    file.set_len(0)?;
                    return Err(error.into());
                }
            }
        }
    }

    /// Whether there was something to let go of.
    fn release(&self) -> bool {
        let held = fs::metadata(&self.path).is_ok_and(|found| found.blocks() > 0);
        held && File::options()
            .write(true)
            .open(&self.path)
            .and_then(|file| {
                file.set_len(0)?;
                // File systems may give freed blocks to others only when that is durable.
                file.sync_all()
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn full() -> ApiError {
        ApiError::new(ErrorCode::StorageFull, "full")
    }

    #[tokio::test]
    async fn it_is_lent_to_a_removal_that_finds_the_disk_full() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(directory.path());
        reserve.fill();
        assert!(reserve.is_full());
        let (attempts, room) = (Cell::new(0), Cell::new(false));
        let removal = || async {
            attempts.set(attempts.get() + 1);
            room.set(!reserve.is_full());
            if attempts.get() == 1 { Err(full()) } else { Ok(7) }
        };
        assert_eq!(reserve.lend(removal).await.unwrap(), 7);
        assert_eq!((attempts.get(), room.get()), (2, true));
        assert!(reserve.is_full(), "it is made again");
    }

    #[tokio::test]
    async fn other_errors_and_success_leave_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(directory.path());
        reserve.fill();
        let error = reserve
            .lend(|| async { Err::<(), _>(ApiError::new(ErrorCode::Internal, "no")) })
            .await
            .unwrap_err();
        assert_eq!(error.problem.code, ErrorCode::Internal);
        reserve.lend(|| async { Ok(()) }).await.unwrap();
        assert!(reserve.is_full());
        let error = reserve.lend(|| async { Err::<(), _>(full()) }).await.unwrap_err();
        assert_eq!(error.problem.code, ErrorCode::StorageFull, "twice full is full");
        assert!(reserve.is_full());
    }
}
