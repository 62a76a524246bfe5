//! The interface to uppers: the writable part of a root, and all that a sandbox ever changed.

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use crate::RootsError;

mod directory;
mod host;
mod image;

pub use directory::DirectoryUppers;
pub use host::{HostUppers, UpperKind};
pub use image::ImageUppers;

/// What an upper takes on the host's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes, file data and directories.
    pub bytes: u64,
    /// Files and directories; a file with several names counts once.
    pub inodes: u64,
}

/// How much an upper may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLimits {
    /// The size of its disk in bytes, counted in whole MiB: file data, directories and the file
    /// system's own records. One inode for every [`UpperLimits::BYTES_PER_INODE`] of it.
    pub bytes: u64,
}

impl UpperLimits {
    /// Below this a file system has hardly room for anything but itself.
    pub const LEAST: u64 = 32 << 20;
    /// What is kept of a larger one in memory, to make new ones of, is no longer small.
    pub const MOST: u64 = 1 << 40;
    /// How much of the size comes with one inode.
    pub const BYTES_PER_INODE: u64 = 16 << 10;

    /// With less free than this on the host's disk of `size` bytes, images may take no more: their
    /// file systems are full until there is as much again.
    pub const fn least_free(size: u64) -> u64 {
        const MOST: u64 = 256 << 20;
        if size / 16 < MOST { size / 16 } else { MOST }
    }
}

impl Default for UpperLimits {
    fn default() -> Self {
        Self { bytes: 10 << 30 }
    }
}

/// The directory with an upper's changes. It can be read as long as this value lives.
#[derive(Debug)]
pub struct Changes {
    path: PathBuf,
    /// The directory above it, when only a descriptor leads there.
    _directory: Option<OwnedFd>,
}

impl Changes {
    /// Changes with a path of their own.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, _directory: None }
    }

    /// The changes `u` in a directory that has no path.
    pub(crate) fn below(directory: OwnedFd) -> Self {
        let path = format!("/proc/self/fd/{}/u", directory.as_raw_fd());
        Self { path: path.into(), _directory: Some(directory) }
    }
}

impl Deref for Changes {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Changes {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// Uppers by id. All calls block.
///
/// Life of an upper: `create` (empty) → any number of mounts by [`crate::Roots::mount`], one at a time,
/// each followed by `rest` → `path` to read what was changed → `remove`. Ids are 1 to 128 letters,
/// digits, `_`, `-` and `.`, begin with a letter or digit, and do not end in `.ext4`.
pub trait UpperStore: Send + Sync + fmt::Debug {
    /// Makes an empty upper whose root is owned by 0:0 and has mode 0755; `UpperExists` if there is one.
    fn create(&self, id: &str, limits: UpperLimits) -> Result<(), RootsError>;

    /// Whether the limits of the uppers that are made hold.
    fn bounded(&self) -> bool;

    /// Whether there is an upper with this id.
    fn exists(&self, id: &str) -> Result<bool, RootsError>;

    /// The directory with the changes, to be read on the host; `NoUpper` if there is none. It holds
    /// what a sandbox wrote: setuid programs, links to anywhere. Nothing in it is ever followed or run.
    fn path(&self, id: &str) -> Result<Changes, RootsError>;

    /// The directory that holds `u` (the changes) and `w` (overlayfs's work), both on one mount.
    fn open(&self, id: &str) -> Result<OwnedFd, RootsError>;

    /// Takes charge of uppers that sandboxes of an earlier process still have mounted. Without effect
    /// on all others. An error is that of the first one that could not be adopted; the rest are.
    fn adopt(&self, ids: &[String]) -> Result<(), RootsError>;

    /// Lets go of what is kept of an upper that nothing has mounted any more. What was changed goes to
    /// the disk. Without effect on an upper that is in use, or not there.
    fn rest(&self, id: &str) -> Result<(), RootsError>;

    /// Says that an upper is about to be removed: nothing of it needs to reach the disk any more, and
    /// what has it mounted can end without waiting for that. Reading and writing may fail from now on.
    fn abandon(&self, id: &str) -> Result<(), RootsError>;

    /// Removes an upper with all that is in it, whatever a sandbox made of it. Answers whether it was
    /// there. An upper whose removal was cut off is gone all the same, and its rest is removed later.
    fn remove(&self, id: &str) -> Result<bool, RootsError>;

    /// The ids of all uppers, sorted.
    fn list(&self) -> Result<Vec<String>, RootsError>;

    /// What an upper takes on disk.
    fn usage(&self, id: &str) -> Result<Usage, RootsError>;
}

/// The end of the names of images; ids do not have it, so that no directory can be taken for an image.
const IMAGE: &str = ".ext4";

fn check_id(id: &str) -> Result<(), RootsError> {
    let bytes = id.as_bytes();
    let word = |byte: &u8| byte.is_ascii_alphanumeric();
    let fine = bytes.len() <= 128
        && bytes.first().is_some_and(word)
        && bytes.iter().all(|byte| word(byte) || matches!(byte, b'_' | b'-' | b'.'))
        && !id.ends_with(IMAGE);
    if fine { Ok(()) } else { Err(RootsError::BadId { id: id.chars().take(200).collect() }) }
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RootsError + use<> {
    let path = path.to_owned();
    move |source| RootsError::Io { action, path, source }
}

/// Makes the directory of uppers. Files in it have the ids that sandboxes see, which are also ids of
/// this host, and keep their setuid bits: it is closed to everybody but its owner.
fn make_private(dir: &Path) -> Result<(), RootsError> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let builder = &mut std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(at("make", dir))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .map_err(at("set the mode of", dir))
}
