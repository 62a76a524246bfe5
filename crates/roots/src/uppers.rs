//! The interface to uppers: the writable part of a root, and all that a sandbox ever changed.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::RootsError;

mod directory;

pub use directory::DirectoryUppers;

/// What an upper takes on the host's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes, file data and directories.
    pub bytes: u64,
    /// Files and directories; a file with several names counts once.
    pub inodes: u64,
}

/// Uppers by id. All calls block.
///
/// Life of an upper: `create` (empty) → any number of mounts by [`crate::Roots::mount`], one at a time
/// → `path` to read what was changed → `remove`. Ids are 1 to 128 letters, digits, `_`, `-` and `.`,
/// and begin with a letter or digit.
pub trait UpperStore: Send + Sync + fmt::Debug {
    /// Makes an empty upper whose root is owned by 0:0 and has mode 0755; `UpperExists` if there is one.
    fn create(&self, id: &str) -> Result<(), RootsError>;

    /// Whether there is an upper with this id.
    fn exists(&self, id: &str) -> Result<bool, RootsError>;

    /// The directory with the changes, to be read on the host; `NoUpper` if there is none. It holds
    /// what a sandbox wrote: setuid programs, links to anywhere. Nothing in it is ever followed or run.
    fn path(&self, id: &str) -> Result<PathBuf, RootsError>;

    /// The directory that holds `u` (the changes) and `w` (overlayfs's work), both on one mount.
    fn open(&self, id: &str) -> Result<OwnedFd, RootsError>;

    /// Removes an upper with all that is in it, whatever a sandbox made of it. Answers whether it was
    /// there. An upper whose removal was cut off is gone all the same, and its rest is removed later.
    fn remove(&self, id: &str) -> Result<bool, RootsError>;

    /// The ids of all uppers, sorted.
    fn list(&self) -> Result<Vec<String>, RootsError>;

    /// What an upper takes on disk.
    fn usage(&self, id: &str) -> Result<Usage, RootsError>;
}
