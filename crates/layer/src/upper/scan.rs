//! Finds and checks everything in an upper directory before any of it is written.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};

use super::UpperOptions;
use super::xattrs;
use crate::attributes::{Attributes, Mtime};
use crate::error::LayerError;
use crate::name::{Printable, components, join};

/// What an upper directory holds, in the order of the tar.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) found: Vec<Found>,
    pub(super) skipped_sockets: u64,
    apparent_size: u64,
}

/// One member of the tar.
#[derive(Debug)]
pub(super) struct Found {
    /// From the upper directory, without a slash at either end.
    pub(super) path: Vec<u8>,
    pub(super) attributes: Attributes,
    pub(super) kind: FoundKind,
}

/// What it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FoundKind {
    Directory {
        opaque: bool,
    },
    /// With all that tells whether the file is still the same and unchanged.
    File {
        size: u64,
        identity: (u64, u64),
        changed: (i64, i64),
    },
    /// To this path, which comes earlier.
    Hardlink(Vec<u8>),
    Symlink(Vec<u8>),
    /// Major, minor.
    CharDevice((u32, u32)),
    BlockDevice((u32, u32)),
    Fifo,
    /// The path of the marker, `.wh.` in it.
    Whiteout(Vec<u8>),
}

impl FoundKind {
    pub(super) fn file(stat: &Stat) -> Self {
        Self::File {
            size: stat.st_size as u64,
            identity: (stat.st_dev, stat.st_ino),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

/// Opens a path below `root`; no symlink on it is followed, nor a mount point passed.
pub(super) fn open_below(root: &OwnedFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path: &OsStr = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?)
}

/// Walks the upper directory, names in byte order, each directory before what it holds.
pub(super) fn scan(root: &OwnedFd, options: &UpperOptions) -> Result<Scan, LayerError> {
    let exclude: Vec<Vec<u8>> = options
        .exclude
        .iter()
        .map(|path| join(&components(path.as_os_str().as_bytes()).collect::<Vec<_>>()))
        .collect();
    let mut scanner = Scanner { root, options, scan: Scan::default(), first_names: HashMap::new() };
    let mut stack = vec![Vec::new()];
    while let Some(path) = stack.pop() {
        if !exclude.contains(&path) {
            scanner.visit(path, &mut stack)?;
        }
    }
    let Scanner { scan, .. } = scanner;
    let limit = options.max_apparent_size;
    if scan.apparent_size > limit {
        return Err(LayerError::UpperTooLarge { size: scan.apparent_size, limit });
    }
    Ok(scan)
}

struct Scanner<'s> {
    root: &'s OwnedFd,
    options: &'s UpperOptions,
    scan: Scan,
    /// By device and inode number: the first name of inodes that have several.
    first_names: HashMap<(u64, u64), Vec<u8>>,
}

impl Scanner<'_> {
    fn visit(&mut self, path: Vec<u8>, stack: &mut Vec<Vec<u8>>) -> Result<(), LayerError> {
        self.check_path(&path)?;
        let io = |operation| failed(operation, &path);
        let fd =
            open_below(self.root, &path, OFlags::PATH | OFlags::NOFOLLOW).map_err(io("open"))?;
        let stat = rustix::fs::fstat(&fd).map_err(|error| io("inspect")(error.into()))?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let rdev = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        if file_type == FileType::Socket {
            self.scan.skipped_sockets += 1;
            return Ok(());
        }
        if file_type == FileType::CharacterDevice && rdev == (0, 0) {
            let kind = FoundKind::Whiteout(marker_path(&path));
            return self.push(path, Attributes::implied_directory(), kind);
        }
        let identity = (stat.st_dev, stat.st_ino);
        let several = file_type != FileType::Directory && stat.st_nlink > 1;
        let xattrs = xattrs::read(fd.as_fd()).map_err(io("read the xattrs of"))?;
        if let Some(problem) = xattrs.refused {
            return Err(refused(&path, problem));
        }
        let attributes = attributes(&stat, xattrs.kept);
        self.check_xattrs(&path, &attributes)?;
        if several && let Some(first) = self.first_names.get(&identity) {
            let kind = FoundKind::Hardlink(first.clone());
            return self.push(path, attributes, kind);
        }
        let kind = match file_type {
            FileType::Directory => {
                self.push_children(&path, stack)?;
                FoundKind::Directory { opaque: xattrs.opaque }
            }
            FileType::RegularFile => {
                let size = stat.st_size as u64;
                self.scan.apparent_size = self.scan.apparent_size.saturating_add(size);
                FoundKind::file(&stat)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())
                    .map_err(|error| io("read the symlink")(error.into()))?;
                FoundKind::Symlink(target.into_bytes())
            }
            FileType::CharacterDevice => FoundKind::CharDevice(rdev),
            FileType::BlockDevice => FoundKind::BlockDevice(rdev),
            FileType::Fifo => FoundKind::Fifo,
            FileType::Socket | FileType::Unknown => {
                return Err(refused(&path, "its file type is unknown".to_owned()));
            }
        };
        if several {
            self.first_names.insert(identity, path.clone());
        }
        self.push(path, attributes, kind)
    }

    fn push_children(&self, path: &[u8], stack: &mut Vec<Vec<u8>>) -> Result<(), LayerError> {
        let list = || -> io::Result<Vec<Vec<u8>>> {
            let directory = open_below(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let mut names = Vec::new();
            for entry in Dir::read_from(&directory)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if !matches!(&name[..], b"." | b"..") {
                    names.push(name);
                }
            }
            Ok(names)
        };
        let mut names = list().map_err(failed("list", path))?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        for name in names {
            let child = if path.is_empty() { name } else { join(&[path, &name]) };
            stack.push(child);
        }
        Ok(())
    }

    fn check_path(&self, path: &[u8]) -> Result<(), LayerError> {
        let limits = &self.options.limits;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let problem = if name.starts_with(b".wh.") {
            "in a layer, names that start with `.wh.` delete others; rename it".to_owned()
        } else if path.len() >= limits.path_bytes {
            format!("its path is longer than {} bytes", limits.path_bytes)
        } else if components(path).count() > limits.depth {
            format!("it lies deeper than {} directories", limits.depth)
        } else if self.scan.found.len() as u64 >= limits.entries {
            format!("the directory has more than {} entries", limits.entries)
        } else {
            return Ok(());
        };
        Err(refused(path, problem))
    }

    fn check_xattrs(&self, path: &[u8], attributes: &Attributes) -> Result<(), LayerError> {
        let limit = self.options.limits.xattr_bytes;
        let size: usize = attributes.xattrs.iter().map(|x| x.name.len() + x.value.len()).sum();
        if size <= limit {
            return Ok(());
        }
        Err(refused(path, format!("its xattrs take {size} bytes, more than {limit}")))
    }

    fn push(
        &mut self,
        path: Vec<u8>,
        attributes: Attributes,
        kind: FoundKind,
    ) -> Result<(), LayerError> {
        if path.is_empty() && !matches!(kind, FoundKind::Directory { .. }) {
            return Err(refused(b"/", "it is not a directory".to_owned()));
        }
        self.scan.found.push(Found { path, attributes, kind });
        Ok(())
    }
}

/// `dir/name` → `dir/.wh.name`.
fn marker_path(path: &[u8]) -> Vec<u8> {
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    [&path[..name], b".wh.", &path[name..]].concat()
}

fn attributes(stat: &Stat, xattrs: Vec<crate::Xattr>) -> Attributes {
    Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Mtime { secs: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
        xattrs,
    }
}

fn failed<'p>(
    operation: &'static str,
    path: &'p [u8],
) -> impl Fn(io::Error) -> LayerError + use<'p> {
    move |source| LayerError::ReadUpper { operation, path: shown(path), source }
}

fn refused(path: &[u8], problem: String) -> LayerError {
    LayerError::UpperEntry { path: shown(path), problem }
}

fn shown(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { Printable(path).to_string() }
}
