//! A laid-out layer, compared with what it was made from: every name, attribute and byte.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kiln_layer::{EntryKind, Extent, HOST_LABELS, Index, IndexEntry};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, lgetxattr, llistxattr, makedev, openat2,
    readlinkat, statat,
};
use rustix::io::Errno;

use super::browse::{INSIDE, open_directory, shown, spelled};
use super::extract::holds;
use super::files::Files;
use crate::{LayerDamage, RootsError};

/// Bytes that are compared at once.
const BUFFER: usize = 1 << 20;
/// What is found beyond this is not told.
const MOST: usize = 1000;
/// The seconds that every file system holds (ext4 with 256-byte inodes: 1901 to 2446). Others are
/// stored as near as it can.
const SECONDS: std::ops::RangeInclusive<i64> = -(1 << 31)..=(1 << 34) - (1 << 31) - 1;
/// An access list of so many bytes says no more than a mode, and is stored as one.
const MINIMAL_LIST: usize = 28;

/// Compares the layer in `tree` with its checked index and tars.
pub(super) fn verify(
    index: &Index,
    files: &Files,
    tree: &OwnedFd,
) -> Result<Vec<LayerDamage>, RootsError> {
    let mut comparison = Comparison {
        index,
        files,
        tree,
        inodes: HashMap::new(),
        buffers: (vec![0; BUFFER], vec![0; BUFFER]),
        damage: Vec::new(),
    };
    let mut pending = VecDeque::from([(index.root_ino(), PathBuf::new())]);
    let root = statat(tree, ".", AtFlags::empty())
        .map_err(|error| comparison.files.fail(Path::new(""), "fstatat", error))?;
    let entry = comparison.entry(index.root_ino())?;
    comparison.entry_at(tree, OsStr::new("."), Path::new(""), &entry, &root)?;
    while let Some((ino, path)) = pending.pop_front() {
        if comparison.damage.len() >= MOST {
            break;
        }
        comparison.directory(ino, &path, &mut pending)?;
    }
    Ok(comparison.damage)
}

struct Comparison<'a> {
    index: &'a Index,
    files: &'a Files,
    tree: &'a OwnedFd,
    /// The file that each inode of the index with several names was found to be, and its first name.
    inodes: HashMap<u64, u64>,
    buffers: (Vec<u8>, Vec<u8>),
    damage: Vec<LayerDamage>,
}

impl Comparison<'_> {
    fn directory(
        &mut self,
        ino: u64,
        path: &Path,
        pending: &mut VecDeque<(u64, PathBuf)>,
    ) -> Result<(), RootsError> {
        let directory = open_directory(self.tree, path)
            .map_err(|error| self.files.fail(path, "open the directory", error))?;
        let mut found: BTreeSet<OsString> = BTreeSet::new();
        let names = Dir::read_from(&directory)
            .map_err(|error| self.files.fail(path, "read the directory", error))?;
        for name in names {
            let name = name.map_err(|error| self.files.fail(path, "read the directory", error))?;
            let name = name.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                found.insert(OsString::from_vec(name.to_vec()));
            }
        }
        let index = self.index;
        let expected = index.names(ino).map_err(|source| self.files.refused(source))?;
        let expected: Vec<(&OsStr, u64)> = expected.collect();
        for (name, child) in expected {
            let below = path.join(name);
            found.remove(name);
            let entry = self.entry(child)?;
            let stat = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {
                    self.tell(&below, "it is missing".to_owned());
                    continue;
                }
                other => other.map_err(|error| self.files.fail(&below, "fstatat", error))?,
            };
            let whole = self.entry_at(&directory, name, &below, &entry, &stat)?;
            if entry.nlink > 1 && entry.kind != EntryKind::Directory {
                let first = *self.inodes.entry(child).or_insert(stat.st_ino);
                if first != stat.st_ino && entry.kind != EntryKind::Whiteout {
                    self.tell(&below, "it is no longer a link to its other names".to_owned());
                }
            }
            if whole && entry.kind == EntryKind::Directory {
                pending.push_back((child, below));
            }
        }
        for name in found {
            self.tell(&path.join(name), "the layer has no such file".to_owned());
        }
        Ok(())
    }

    /// Compares all but what is below. Whether the kind is right.
    fn entry_at(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &Path,
        entry: &IndexEntry,
        found: &Stat,
    ) -> Result<bool, RootsError> {
        let (kind, device) = match &entry.kind {
            EntryKind::File(_) => (FileType::RegularFile, 0),
            EntryKind::Directory => (FileType::Directory, 0),
            EntryKind::Symlink(_) => (FileType::Symlink, 0),
            EntryKind::Fifo => (FileType::Fifo, 0),
            EntryKind::Whiteout => (FileType::CharacterDevice, 0),
            EntryKind::CharDevice { major, minor } => {
                (FileType::CharacterDevice, makedev(*major, *minor))
            }
            EntryKind::BlockDevice { major, minor } => {
                (FileType::BlockDevice, makedev(*major, *minor))
            }
        };
        let found_kind = FileType::from_raw_mode(found.st_mode);
        if found_kind != kind || found.st_rdev != device {
            self.tell(path, format!("it is a {found_kind:?}, not a {kind:?}"));
            return Ok(false);
        }
        if entry.kind == EntryKind::Whiteout {
            return Ok(true);
        }
        let link = kind == FileType::Symlink;
        let mut differ = |what: &str, expected: String, found: String| {
            if expected != found {
                self.damage.push(LayerDamage {
                    entry: shown(path),
                    problem: format!("its {what} is {found}, not {expected}"),
                });
            }
        };
        let owner = |uid: u32, gid: u32| format!("{uid}:{gid}");
        differ("owner", owner(entry.uid, entry.gid), owner(found.st_uid, found.st_gid));
        if !link {
            let mode = |mode: u32| format!("{mode:04o}");
            differ("mode", mode(entry.mode), mode(found.st_mode & 0o7777));
        }
        if SECONDS.contains(&entry.mtime.secs) {
            let time = |secs: i64, nanos: u64| format!("{secs}.{nanos:09}");
            differ(
                "time",
                time(entry.mtime.secs, u64::from(entry.mtime.nanos)),
                time(found.st_mtime, found.st_mtime_nsec),
            );
        }
        if kind == FileType::RegularFile || link {
            differ("size", entry.size.to_string(), found.st_size.to_string());
        }
        if kind != FileType::Directory {
            differ("number of names", entry.nlink.to_string(), found.st_nlink.to_string());
        }
        self.xattrs(directory, name, path, entry)?;
        match &entry.kind {
            EntryKind::File(extents) if entry.size == found.st_size.cast_unsigned() => {
                self.content(directory, name, path, extents)?;
            }
            EntryKind::Symlink(target) => {
                let read = readlinkat(directory, name, Vec::new())
                    .map_err(|error| self.files.fail(path, "readlinkat", error))?;
                if read.to_bytes() != target.as_slice() {
                    self.tell(path, "it leads to another place".to_owned());
                }
            }
            _ => {}
        }
        Ok(true)
    }

    fn xattrs(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &Path,
        entry: &IndexEntry,
    ) -> Result<(), RootsError> {
        let mut found = read_xattrs(&spelled(directory, name))
            .map_err(|error| self.files.fail(path, "read the xattrs", error))?;
        for xattr in entry.xattrs.iter().filter(|xattr| holds(entry, xattr)) {
            let minimal =
                xattr.name == b"system.posix_acl_access" && xattr.value.len() == MINIMAL_LIST;
            let shown = shown(Path::new(OsStr::from_bytes(&xattr.name)));
            match found.remove(&xattr.name) {
                Some(value) if value == xattr.value => {}
                Some(_) => self.tell(path, format!("its xattr `{shown}` has another value")),
                None if minimal => {}
                None => self.tell(path, format!("its xattr `{shown}` is missing")),
            }
        }
        for name in found.into_keys().filter(|name| !HOST_LABELS.contains(&name.as_slice())) {
            let shown = shown(Path::new(OsStr::from_bytes(&name)));
            self.tell(path, format!("the layer has no such xattr `{shown}`"));
        }
        Ok(())
    }

    fn content(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &Path,
        extents: &[Extent],
    ) -> Result<(), RootsError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat2(directory, name, flags, Mode::empty(), INSIDE)
            .map_err(|error| self.files.fail(path, "openat2", error))?;
        let file = File::from(file);
        let mut position = 0;
        for extent in extents {
            let mut done = 0;
            while done < extent.len {
                let length = (extent.len - done).min(BUFFER as u64) as usize;
                let (theirs, ours) = (&mut self.buffers.0[..length], &mut self.buffers.1[..length]);
                let read = self
                    .files
                    .read(extent, done, theirs)
                    .and_then(|()| file.read_exact_at(ours, position));
                if let Err(error) = read {
                    return Err(self.files.failed(path, "compare the content", error));
                }
                if theirs != ours {
                    let at = theirs.iter().zip(&*ours).position(|(a, b)| a != b).unwrap_or(0);
                    self.tell(path, format!("byte {} is another", position + at as u64));
                    return Ok(());
                }
                position += length as u64;
                done += length as u64;
            }
        }
        Ok(())
    }

    fn entry(&self, ino: u64) -> Result<IndexEntry, RootsError> {
        self.index.inode(ino).map_err(|source| self.files.refused(source))
    }

    fn tell(&mut self, path: &Path, problem: String) {
        if self.damage.len() < MOST {
            self.damage.push(LayerDamage { entry: shown(path), problem });
        }
    }
}

fn read_xattrs(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match llistxattr(path, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut value = vec![0_u8; 64 << 10];
    names
        .map(|name| {
            let length = lgetxattr(path, name, &mut value)?;
            Ok((name.to_vec(), value[..length].to_vec()))
        })
        .collect()
}
