//! The directory of laid-out layers: `<stem of the index>.<16 digits of its content>/{tree,record}`.
//!
//! The name carries the content of the index, so that another index under the same key never meets a
//! directory that was not made from it, and a sandbox that runs on an older one keeps it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_types::Digest;
use rustix::fs::{Mode, OFlags, RenameFlags, fremovexattr, fsync, openat2, renameat_with, syncfs};
use rustix::io::Errno;

use super::browse::INSIDE;
use crate::{RootsError, Usage, removal};

/// Prefix of what is on its way in or out; no layer's name begins like this.
const DRAFT: &str = ".making-";
const DOOMED: &str = ".removing-";
const TREE: &str = "tree";
const RECORD: &str = "record";
/// Hexadecimal digits of the index's digest in a name.
const DIGITS: usize = 16;

/// The directory. Image files in it keep their owners and setuid bits, so it is closed to all others.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    dir: OwnedFd,
    counter: AtomicU64,
}

impl Store {
    /// Opens the directory, makes it if need be, and removes what is half-made or half-removed.
    pub(crate) fn open(path: &Path) -> Result<Self, RootsError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("make", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(at("set the mode of", path))?;
        let dir = File::open(path).map_err(at("open", path))?.into();
        let store = Self { path: path.to_owned(), dir, counter: AtomicU64::new(0) };
        for name in store.names()? {
            if name.starts_with(DRAFT) || name.starts_with(DOOMED) {
                removal::remove_tree(&store.path.join(name))?;
            }
        }
        Ok(store)
    }

    /// The part of a layer's name that the path of its index gives.
    pub(crate) fn stem(index: &Path) -> Result<String, RootsError> {
        let stem = index.file_stem().and_then(|stem| stem.to_str());
        let fits = |stem: &&str| !stem.starts_with('.') && stem.len() <= 128;
        stem.filter(fits).map(str::to_owned).ok_or_else(|| RootsError::Io {
            action: "find a name for the layer of",
            path: index.to_owned(),
            source: io::ErrorKind::InvalidInput.into(),
        })
    }

    /// The stems of many.
    pub(crate) fn stems<'p>(
        indexes: impl Iterator<Item = &'p PathBuf>,
    ) -> Result<HashSet<String>, RootsError> {
        indexes.map(|index| Self::stem(index)).collect()
    }

    /// The name of the layer whose index has this stem and content.
    pub(super) fn name(stem: &str, content: &Digest) -> String {
        format!("{stem}.{}", &content.hex()[..DIGITS])
    }

    /// The tree of a layer that is laid out.
    pub(super) fn find(&self, name: &str) -> Result<Option<OwnedFd>, RootsError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat2(&self.dir, format!("{name}/{TREE}"), flags, Mode::empty(), INSIDE) {
            Ok(tree) => Ok(Some(tree)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(at("open", &self.path.join(name))(error.into())),
        }
    }

    /// Lays a layer out: `fill` is given its empty root. Nothing is visible before all of it is durable,
    /// and nothing is left when it fails.
    pub(super) fn make(
        &self,
        name: &str,
        fill: impl FnOnce(&OwnedFd) -> Result<Usage, RootsError>,
    ) -> Result<OwnedFd, RootsError> {
        let draft = self.aside(DRAFT, name);
        let made = self.draft(&draft, fill).and_then(|()| self.place(&draft, name));
        if made.is_err() {
            // What cannot be removed now is removed when the directory is opened the next time.
            let _left = removal::remove_tree(&self.path.join(&draft));
        }
        made?;
        kiln_failpoint::pass("layer.laid-out");
        self.find(name)?
            .ok_or_else(|| at("open", &self.path.join(name))(io::ErrorKind::NotFound.into()))
    }

    fn draft(
        &self,
        draft: &str,
        fill: impl FnOnce(&OwnedFd) -> Result<Usage, RootsError>,
    ) -> Result<(), RootsError> {
        let path = self.path.join(draft);
        let tree_path = path.join(TREE);
        DirBuilder::new().mode(0o700).create(&path).map_err(at("make", &path))?;
        // A default list of the data directory would become part of every file in the layer.
        for list in ["system.posix_acl_default", "system.posix_acl_access"] {
            let opened = File::open(&path).map_err(at("open", &path))?;
            match fremovexattr(&opened, list) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(at("take the access list off", &path)(error.into())),
            }
        }
        DirBuilder::new().mode(0o700).create(&tree_path).map_err(at("make", &tree_path))?;
        let tree: OwnedFd = File::open(&tree_path).map_err(at("open", &tree_path))?.into();
        let usage = fill(&tree)?;
        let record = path.join(RECORD);
        fs::write(&record, format!("bytes {}\ninodes {}\n", usage.bytes, usage.inodes))
            .map_err(at("write", &record))?;
        kiln_failpoint::reach("layer.drafted").map_err(at("sync", &path))?;
        // One call for all of it, however many files there are.
        syncfs(&tree).map_err(|error| at("sync", &path)(error.into()))
    }

    fn place(&self, draft: &str, name: &str) -> Result<(), RootsError> {
        renameat_with(&self.dir, draft, &self.dir, name, RenameFlags::NOREPLACE)
            .and_then(|()| fsync(&self.dir))
            .map_err(|error| at("put in place", &self.path.join(name))(error.into()))
    }

    /// Removes every directory of the layers with this stem.
    pub(crate) fn remove_all_of(&self, stem: &str) -> Result<u64, RootsError> {
        self.remove_where(|found| found == stem)
    }

    /// Removes all whose stem is not to be kept.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) -> Result<u64, RootsError> {
        self.remove_where(|stem| !keep(stem))
    }

    fn remove_where(&self, gone: impl Fn(&str) -> bool) -> Result<u64, RootsError> {
        let mut bytes = 0;
        for name in self.names()? {
            if !stem_of(&name).is_some_and(&gone) {
                continue;
            }
            bytes += self.recorded(&name).unwrap_or(0);
            let doomed = self.aside(DOOMED, &name);
            renameat_with(&self.dir, &name, &self.dir, &doomed, RenameFlags::NOREPLACE)
                .map_err(|error| at("remove", &self.path.join(&name))(error.into()))?;
            kiln_failpoint::reach("layer.doomed")
                .map_err(at("remove", &self.path.join(&doomed)))?;
            removal::remove_tree(&self.path.join(&doomed))?;
        }
        Ok(bytes)
    }

    /// What the directories of the layers with this stem take on disk.
    pub(crate) fn bytes_of(&self, stem: &str) -> Result<u64, RootsError> {
        let names = self.names()?;
        let names = names.iter().filter(|name| stem_of(name) == Some(stem));
        names.map(|name| self.recorded(name)).sum()
    }

    /// What the record says of the tree, and what the record and its directory take themselves.
    fn recorded(&self, name: &str) -> Result<u64, RootsError> {
        let whole = self.path.join(name);
        let record = whole.join(RECORD);
        let text = fs::read_to_string(&record).map_err(at("read", &record))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("bytes "));
        let tree: u64 = bytes
            .and_then(|bytes| bytes.parse().ok())
            .ok_or_else(|| at("understand", &record)(io::ErrorKind::InvalidData.into()))?;
        let held = |path: &Path| match fs::symlink_metadata(path) {
            Ok(found) => Ok(found.blocks() * 512),
            Err(source) => Err(at("look at", path)(source)),
        };
        Ok(tree + held(&whole)? + held(&record)?)
    }

    fn names(&self) -> Result<Vec<String>, RootsError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(at("read", &self.path))? {
            let entry = entry.map_err(at("read", &self.path))?;
            names.extend(entry.file_name().to_str().map(str::to_owned));
        }
        Ok(names)
    }

    fn aside(&self, prefix: &str, name: &str) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}{}-{number}-{name}", std::process::id())
    }
}

/// The stem in a layer's name; `None` for what is none.
fn stem_of(name: &str) -> Option<&str> {
    let (stem, digits) = name.rsplit_once('.')?;
    let hex = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hex && !stem.is_empty() && !stem.starts_with('.')).then_some(stem)
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootsError + use<> {
    let path = path.to_owned();
    move |source| RootsError::Io { action, path, source }
}
