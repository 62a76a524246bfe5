//! Where a run has its files: a directory on the disk, and one of the same name in memory. The name is how
//! a later run finds what is left of one that was killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{UnmountFlags, unmount};

/// Where the directories of all runs are.
const DISK: &str = "/var/tmp";
const MEMORY: &str = "/dev/shm";
const PREFIX: &str = "kiln-bench-";
/// Locked for as long as the run lives.
const MARKER: &str = "running";

/// The place of one run. Dropping it removes everything in it, and what is mounted there.
#[derive(Debug)]
pub(crate) struct Place {
    /// The directory on the disk.
    pub path: PathBuf,
    lock: File,
}

impl Place {
    /// A new one.
    pub(crate) fn new() -> Result<Self> {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(DISK)?;
        let marker = made.path().join(MARKER);
        let lock = File::create(&marker)
            .with_context(|| format!("could not make {}", marker.display()))?;
        lock.try_lock().with_context(|| format!("could not lock {}", marker.display()))?;
        Ok(Self { path: made.keep(), lock })
    }

    /// The places of runs that have ended and left them.
    pub(crate) fn left() -> Result<Vec<Self>> {
        let mut left = Vec::new();
        for entry in fs::read_dir(DISK)? {
            let path = entry?.path();
            let named = path.file_name().and_then(|name| name.to_str());
            if !named.is_some_and(|name| name.starts_with(PREFIX)) {
                continue;
            }
            if let Ok(lock) = File::open(path.join(MARKER))
                && lock.try_lock().is_ok()
            {
                left.push(Self { path, lock });
            }
        }
        Ok(left)
    }

    /// The name that all paths of this run have in them.
    pub(crate) fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or(PREFIX)
    }

    /// The directory in memory, which is made by whoever needs it; on the disk where there is none.
    pub(crate) fn memory(&self) -> PathBuf {
        let memory = Path::new(MEMORY);
        if memory.is_dir() { memory.join(self.name()) } else { self.path.join("memory-files") }
    }

    /// All directories of this run that there are.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let mut all = vec![self.memory(), self.path.clone()];
        all.retain(|path| path.is_dir());
        all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for directory in self.directories() {
            // What is still mounted must not be removed through its mount.
            let removed = detach(&directory).and_then(|()| {
                fs::remove_dir_all(&directory)
                    .with_context(|| format!("could not remove {}", directory.display()))
            });
            if let Err(error) = removed {
                eprintln!("bench: {error:#}");
            }
        }
        // The next run takes care of what is left.
        let _unlocked = self.lock.unlock();
    }
}

/// Takes away whatever is mounted below a directory.
fn detach(directory: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for point in below(&mounts, directory).iter().rev() {
        unmount(point, UnmountFlags::DETACH)
            .with_context(|| format!("could not unmount {}", point.display()))?;
    }
    Ok(())
}

/// The mount points in or at a directory, in the order in which they were mounted.
fn below(mounts: &str, directory: &Path) -> Vec<PathBuf> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(directory)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_left_only_by_who_is_gone() {
        let place = Place::new().unwrap();
        let path = place.path.clone();
        let known = || Place::left().unwrap().iter().any(|left| left.path == path);
        assert!(!known(), "it is locked");
        // As if this process had been killed: the lock is gone, the directory is not.
        place.lock.unlock().unwrap();
        let left = Place::left().unwrap();
        assert!(left.iter().any(|left| left.path == path));
        // Whoever else has left something keeps it.
        left.into_iter().filter(|left| left.path != path).for_each(std::mem::forget);
        assert!(!path.exists());
    }

    #[test]
    fn mounts_below_are_found_by_whole_names() {
        let mounts = "1 0 8:1 / / rw - ext4 x rw\n2 1 0:2 / /var/tmp/a/b rw - overlay x rw\n\
                      3 1 0:3 / /var/tmp/ab rw - tmpfs x rw\n4 2 0:4 / /var/tmp/a/b/c rw - proc x rw\n";
        let found = below(mounts, Path::new("/var/tmp/a"));
        assert_eq!(found, [Path::new("/var/tmp/a/b"), Path::new("/var/tmp/a/b/c")]);
    }
}
