//! A layer, from its index and tars into an empty directory.
//!
//! Directory by directory, each opened once: its entries are made, then its own attributes set, which
//! nothing done later changes. No path of the layer is ever given to the kernel but below the root's
//! descriptor, and nothing is opened that this module did not make.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kiln_layer::{EntryKind, Extent, Index, IndexEntry, Xattr};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fsetxattr, fstat, fstatvfs, futimens, linkat, lsetxattr, makedev,
    mkdirat, mknodat, openat2, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::browse::{INSIDE, open_directory, shown, spelled};
use super::files::Files;
use crate::{RootsError, Usage};

/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;
/// Runs of zeros of this size and alignment become holes.
const HOLE: usize = 4096;
const ZEROS: [u8; HOLE] = [0; HOLE];
/// A file system with more free bytes than this did not refuse an xattr for want of space.
const ROOM: u64 = 1 << 20;

/// Lays the layer out in `tree`, an empty directory. The index has been checked.
pub(super) fn extract(index: &Index, files: &Files, tree: &OwnedFd) -> Result<Usage, RootsError> {
    let mut extraction = Extraction {
        index,
        files,
        tree,
        first_names: HashMap::new(),
        buffer: vec![0; BUFFER],
        usage: Usage::default(),
    };
    let mut pending = VecDeque::from([(index.root_ino(), PathBuf::new())]);
    while let Some((ino, path)) = pending.pop_front() {
        extraction.directory(ino, &path, &mut pending)?;
    }
    Ok(extraction.usage)
}

struct Extraction<'a> {
    index: &'a Index,
    files: &'a Files,
    tree: &'a OwnedFd,
    /// Where an inode with several names has its first: its directory, and the name there.
    first_names: HashMap<u64, (PathBuf, OsString)>,
    buffer: Vec<u8>,
    usage: Usage,
}

impl Extraction<'_> {
    fn directory(
        &mut self,
        ino: u64,
        path: &Path,
        pending: &mut VecDeque<(u64, PathBuf)>,
    ) -> Result<(), RootsError> {
        let index = self.index;
        let refused = |source| self.files.refused(source);
        let own = index.inode(ino).map_err(refused)?;
        let names: Vec<(&OsStr, u64)> = index.names(ino).map_err(refused)?.collect();
        let directory = open_directory(self.tree, path)
            .map_err(|error| self.files.fail(path, "open the directory", error))?;
        for (name, child) in names {
            let entry = index.inode(child).map_err(|source| self.files.refused(source))?;
            let below = path.join(name);
            if entry.kind == EntryKind::Directory {
                // Closed, and root's: nothing is inherited by what is made in it.
                mkdirat(&directory, name, Mode::RWXU)
                    .map_err(|error| self.files.fail(&below, "mkdirat", error))?;
                pending.push_back((child, below));
            } else if let Some((parent, first)) = self.first_names.get(&child) {
                self.link(parent, first, &directory, name)
                    .map_err(|error| self.files.fail(&below, "linkat", error))?;
            } else {
                self.leaf(&directory, name, &below, &entry)?;
                if entry.nlink > 1 && entry.kind != EntryKind::Whiteout {
                    self.first_names.insert(child, (path.to_owned(), name.to_owned()));
                }
            }
        }
        self.attributes(directory.as_fd(), path, &own)?;
        self.count(&fstat(&directory).map_err(|error| self.files.fail(path, "fstat", error))?);
        Ok(())
    }

    fn link(
        &self,
        parent: &Path,
        first: &OsStr,
        directory: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), Errno> {
        let parent = open_directory(self.tree, parent)?;
        linkat(&parent, first, directory, name, AtFlags::empty())
    }

    fn leaf(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &Path,
        entry: &IndexEntry,
    ) -> Result<(), RootsError> {
        let made = match &entry.kind {
            EntryKind::File(extents) => return self.file(directory, name, path, entry, extents),
            EntryKind::Directory => unreachable!("directories are made by their own function"),
            EntryKind::Symlink(target) => symlinkat(OsStr::from_bytes(target), directory, name),
            EntryKind::Fifo => mknodat(directory, name, FileType::Fifo, Mode::RUSR, 0),
            EntryKind::Whiteout => {
                mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0)
            }
            EntryKind::CharDevice { major, minor } => {
                let device = makedev(*major, *minor);
                mknodat(directory, name, FileType::CharacterDevice, Mode::RUSR, device)
            }
            EntryKind::BlockDevice { major, minor } => {
                let device = makedev(*major, *minor);
                mknodat(directory, name, FileType::BlockDevice, Mode::RUSR, device)
            }
        };
        made.map_err(|error| self.files.fail(path, "make the file", error))?;
        if entry.kind != EntryKind::Whiteout {
            self.attributes_at(directory, name, path, entry)?;
        }
        let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.files.fail(path, "fstatat", error))?;
        self.count(&found);
        Ok(())
    }

    fn file(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &Path,
        entry: &IndexEntry,
        extents: &[Extent],
    ) -> Result<(), RootsError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat2(directory, name, flags | OFlags::CLOEXEC, mode, INSIDE)
            .map_err(|error| self.files.fail(path, "openat2", error))?;
        let file = File::from(file);
        let mut position = 0;
        let mut end = 0;
        for extent in extents {
            let mut done = 0;
            while done < extent.len {
                let length = (extent.len - done).min(BUFFER as u64) as usize;
                let buffer = &mut self.buffer[..length];
                self.files
                    .read(extent, done, buffer)
                    .map_err(|error| self.files.failed(path, "read from the tar", error))?;
                end = write_sparse(&file, &self.buffer[..length], position)
                    .map_err(|error| self.files.failed(path, "write", error))?
                    .unwrap_or(end);
                position += length as u64;
                done += length as u64;
            }
        }
        if end < entry.size {
            file.set_len(entry.size)
                .map_err(|error| self.files.failed(path, "ftruncate", error))?;
        }
        self.attributes(file.as_fd(), path, entry)?;
        self.count(&fstat(&file).map_err(|error| self.files.fail(path, "fstat", error))?);
        Ok(())
    }

    /// Owner, xattrs, mode, times: a change of the owner takes setuid bits and capabilities away, an
    /// access list changes the mode.
    fn attributes(
        &self,
        file: BorrowedFd<'_>,
        path: &Path,
        entry: &IndexEntry,
    ) -> Result<(), RootsError> {
        if (entry.uid, entry.gid) != (0, 0) {
            fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
                .map_err(|error| self.files.fail(path, "fchown", error))?;
        }
        for xattr in &entry.xattrs {
            fsetxattr(file, xattr.name.as_slice(), &xattr.value, XattrFlags::CREATE)
                .map_err(|error| self.xattr_refused(path, xattr, error))?;
        }
        fchmod(file, Mode::from_raw_mode(entry.mode))
            .and_then(|()| futimens(file, &times(entry)))
            .map_err(|error| self.files.fail(path, "set mode and times", error))
    }

    /// The same for what is not opened, since that could have effects.
    fn attributes_at(
        &self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &Path,
        entry: &IndexEntry,
    ) -> Result<(), RootsError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if (entry.uid, entry.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            chownat(directory, name, Some(uid), Some(gid), flags)
                .map_err(|error| self.files.fail(path, "fchownat", error))?;
        }
        for xattr in entry.xattrs.iter().filter(|xattr| holds(entry, xattr)) {
            let file = spelled(directory, name);
            lsetxattr(file, xattr.name.as_slice(), &xattr.value, XattrFlags::CREATE)
                .map_err(|error| self.xattr_refused(path, xattr, error))?;
        }
        if !matches!(entry.kind, EntryKind::Symlink(_)) {
            chmodat(directory, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(|error| self.files.fail(path, "fchmodat", error))?;
        }
        utimensat(directory, name, &times(entry), flags)
            .map_err(|error| self.files.fail(path, "utimensat", error))
    }

    fn count(&mut self, found: &Stat) {
        self.usage.bytes += found.st_blocks.cast_unsigned() * 512;
        self.usage.inodes += 1;
    }

    /// File systems say that they are full when what they are not is large enough for this one.
    fn xattr_refused(&self, path: &Path, xattr: &Xattr, error: Errno) -> RootsError {
        let full = error == Errno::NOSPC
            && fstatvfs(self.tree).is_ok_and(|found| found.f_bavail * found.f_frsize <= ROOM);
        if full || error == Errno::DQUOT {
            return self.files.fail(path, "setxattr", error);
        }
        let name = shown(Path::new(OsStr::from_bytes(&xattr.name)));
        let cause = io::Error::from(error);
        let source = io::Error::other(format!(
            "the file system of the data directory does not take `{name}` of {} bytes: {cause}",
            xattr.value.len()
        ));
        self.files.failed(path, "setxattr", source)
    }
}

/// Whether the kernel lets such a file have the xattr: `user.*` is for files and directories only, and
/// cannot be read from others either.
pub(super) fn holds(entry: &IndexEntry, xattr: &Xattr) -> bool {
    matches!(entry.kind, EntryKind::File(_) | EntryKind::Directory)
        || !xattr.name.starts_with(b"user.")
}

fn times(entry: &IndexEntry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.secs, tv_nsec: i64::from(entry.mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}

/// Writes what is not zero, and gives the end of what was written last.
fn write_sparse(file: &File, data: &[u8], position: u64) -> io::Result<Option<u64>> {
    let mut end = None;
    let mut write = |from: usize, to: usize| {
        if from < to {
            file.write_all_at(&data[from..to], position + from as u64)?;
            end = Some(position + to as u64);
        }
        Ok::<_, io::Error>(())
    };
    // Chunks of a file's extents are aligned; if one is not, it has no holes.
    if !position.is_multiple_of(HOLE as u64) {
        write(0, data.len())?;
        return Ok(end);
    }
    let mut start = 0;
    for (number, block) in data.chunks(HOLE).enumerate() {
        if block == &ZEROS[..block.len()] {
            write(start, number * HOLE)?;
            start = number * HOLE + block.len();
        }
    }
    write(start, data.len())?;
    Ok(end)
}
