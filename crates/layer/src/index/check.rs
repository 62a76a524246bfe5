//! An index, browsed directory by directory, and checked as a whole before anybody acts on it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::lower::OPAQUE;
use super::reader::{EntryKind, Index, IndexEntry};
use crate::attributes::Xattr;
use crate::erofs::{BLOCK, Damage};
use crate::error::LayerError;

/// The mark that makes overlayfs look for whiteouts in a directory which only one layer has.
const ORIGIN: &[u8] = b"trusted.overlay.origin";
/// Bytes of a name, and of a symlink's target, that the kernel takes.
const NAME_MAX: usize = 255;
const TARGET_MAX: u64 = 4095;
/// What `chown` takes for "leave it".
const NO_ID: u32 = u32::MAX;

/// How much an index describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Names, the root's included.
    pub names: u64,
    /// Bytes of all files; one with several names counts once.
    pub bytes: u64,
}

impl Index {
    /// The sizes of [`Index::devices`] in blocks of 512 bytes, rounded up.
    pub fn device_blocks(&self) -> &[u32] {
        &self.device_blocks
    }

    /// The inode number of the root directory.
    pub fn root_ino(&self) -> u64 {
        self.root()
    }

    /// The entry of an inode.
    pub fn inode(&self, ino: u64) -> Result<IndexEntry, LayerError> {
        self.entry(ino).map_err(|damage| self.damaged(damage))
    }

    /// The names in a directory with their inode numbers, in byte order, without `.` and `..`.
    pub fn names(&self, directory: u64) -> Result<impl Iterator<Item = (&OsStr, u64)>, LayerError> {
        let children = self.children(directory).map_err(|damage| self.damaged(damage))?;
        Ok(children.into_iter().map(|(name, ino)| (OsStr::from_bytes(name), ino)))
    }

    /// Reads the whole index and refuses what no index of this crate's writer has: directories with
    /// several names, names and targets that no file system takes, file data outside of the tars,
    /// marks of overlayfs other than the two that are documented.
    ///
    /// Whoever makes files of an index calls this first: what it accepts is a tree, and no larger than
    /// its tars.
    pub fn check(&self) -> Result<Totals, LayerError> {
        self.try_check().map_err(|damage| self.damaged(damage))
    }

    fn try_check(&self) -> Result<Totals, Damage> {
        let tars = self.devices().iter().filter_map(|tar| self.blocks_of(tar));
        let most: u64 = tars.map(|blocks| u64::from(blocks) * BLOCK).sum();
        let root = self.entry(self.root())?;
        if root.kind != EntryKind::Directory {
            return Err(Damage::new("its root is not a directory"));
        }
        check_attributes(&root)?;
        let mut totals = Totals { names: 1, bytes: 0 };
        // One entry for each name would be much for a tree of a million files; inodes are enough.
        let mut seen = HashSet::from([self.root()]);
        let mut pending = vec![self.root()];
        while let Some(directory) = pending.pop() {
            for (name, ino) in self.children(directory)? {
                totals.names += 1;
                if name.len() > NAME_MAX {
                    return Err(Damage::new(format!("a name has more than {NAME_MAX} bytes")));
                }
                let first = seen.insert(ino);
                let entry = self.entry(ino)?;
                if entry.kind == EntryKind::Directory {
                    if !first {
                        return Err(Damage::new("a directory has several names"));
                    }
                    pending.push(ino);
                }
                if first {
                    self.check_entry(&entry)?;
                    if let EntryKind::File(_) = entry.kind {
                        totals.bytes = totals.bytes.saturating_add(entry.size);
                    }
                }
            }
        }
        if totals.bytes > most {
            return Err(Damage::new(format!(
                "its files have {} bytes, more than the {most} of its tars",
                totals.bytes
            )));
        }
        Ok(totals)
    }

    fn check_entry(&self, entry: &IndexEntry) -> Result<(), Damage> {
        check_attributes(entry)?;
        match &entry.kind {
            EntryKind::File(extents) => {
                for extent in extents {
                    let size = self.blocks_of(&extent.tar).map(|blocks| u64::from(blocks) * BLOCK);
                    let end = extent.offset.checked_add(extent.len);
                    if end.is_none() || end > size {
                        return Err(Damage::new("a file's data lie outside of its tar"));
                    }
                }
            }
            EntryKind::Symlink(target) => {
                if !(1..=TARGET_MAX).contains(&entry.size) || target.contains(&0) {
                    return Err(Damage::new("a symlink has no valid target"));
                }
            }
            EntryKind::Directory
            | EntryKind::CharDevice { .. }
            | EntryKind::BlockDevice { .. }
            | EntryKind::Fifo
            | EntryKind::Whiteout => {}
        }
        Ok(())
    }
}

fn check_attributes(entry: &IndexEntry) -> Result<(), Damage> {
    if entry.uid == NO_ID || entry.gid == NO_ID {
        return Err(Damage::new("an inode has no valid owner"));
    }
    if !entry.xattrs.is_sorted_by(|a, b| a.name < b.name) {
        return Err(Damage::new("an inode's xattrs are not in order"));
    }
    for Xattr { name, value } in &entry.xattrs {
        let mark = match name.as_slice() {
            OPAQUE => value == b"y" && entry.kind == EntryKind::Directory,
            ORIGIN => value.is_empty() && entry.kind == EntryKind::Directory,
            other => !other.starts_with(b"trusted."),
        };
        if !mark || name.len() > NAME_MAX || name.contains(&0) {
            return Err(Damage::new("an inode has an xattr that no layer can have"));
        }
    }
    Ok(())
}
