//! Uppers as directories of one directory.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, fstat, openat,
    openat2, renameat_with, statat,
};
use rustix::io::Errno;

use super::{Changes, UpperLimits, UpperStore, Usage, at, check_id, make_private};
use crate::{RootsError, removal};

/// Prefix of what is on its way in or out; no id begins like this.
const DRAFT: &str = ".making-";
const DOOMED: &str = ".removing-";

/// Uppers under `<dir>/<id>/{u,w}`.
///
/// Nothing bounds what they hold but the file system that they are on.
#[derive(Debug)]
pub struct DirectoryUppers {
    dir: PathBuf,
    counter: AtomicU64,
}

impl DirectoryUppers {
    /// The uppers in `dir`, which is made if need be. Removes what an earlier process left half-made
    /// or half-removed, so only one process may have the directory open.
    pub fn open(dir: &Path) -> Result<Self, RootsError> {
        make_private(dir)?;
        let uppers = Self { dir: dir.to_owned(), counter: AtomicU64::new(0) };
        for entry in fs::read_dir(dir).map_err(at("read", dir))? {
            let entry = entry.map_err(at("read", dir))?;
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if name.starts_with(DRAFT.as_bytes()) || name.starts_with(DOOMED.as_bytes()) {
                removal::remove_tree(&entry.path())?;
            }
        }
        Ok(uppers)
    }

    fn upper(&self, id: &str) -> Result<PathBuf, RootsError> {
        check_id(id)?;
        Ok(self.dir.join(id))
    }

    fn aside(&self, prefix: &str, id: &str) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{prefix}{}-{number}-{id}", std::process::id()))
    }
}

impl UpperStore for DirectoryUppers {
    fn create(&self, id: &str, _limits: UpperLimits) -> Result<(), RootsError> {
        let upper = self.upper(id)?;
        let draft = self.aside(DRAFT, id);
        let make = |path: &Path, mode: u32| {
            DirBuilder::new()
                .create(path)
                // The process's umask does not get a say in the mode that the sandbox sees.
                .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
                .map_err(at("make", path))
        };
        let made = make(&draft, 0o700)
            .and_then(|()| make(&draft.join("u"), 0o755))
            .and_then(|()| make(&draft.join("w"), 0o700))
            .and_then(|()| kiln_failpoint::reach("upper.drafted").map_err(at("make", &draft)))
            .and_then(|()| match renameat_with(CWD, &draft, CWD, &upper, RenameFlags::NOREPLACE) {
                Ok(()) => Ok(()),
                Err(Errno::EXIST) => Err(RootsError::UpperExists { id: id.to_owned() }),
                Err(error) => Err(at("make", &upper)(error.into())),
            });
        if made.is_err() {
            let _ = fs::remove_dir_all(&draft);
        }
        kiln_failpoint::pass("upper.created");
        made
    }

    fn bounded(&self) -> bool {
        false
    }

    fn exists(&self, id: &str) -> Result<bool, RootsError> {
        let upper = self.upper(id)?;
        match fs::symlink_metadata(&upper) {
            Ok(found) => Ok(found.is_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(at("look at", &upper)(source)),
        }
    }

    fn path(&self, id: &str) -> Result<Changes, RootsError> {
        if self.exists(id)? {
            Ok(Changes::at(self.dir.join(id).join("u")))
        } else {
            Err(RootsError::NoUpper { id: id.to_owned() })
        }
    }

    fn open(&self, id: &str) -> Result<OwnedFd, RootsError> {
        let upper = self.upper(id)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(CWD, &upper, flags, Mode::empty()) {
            Ok(directory) => Ok(directory),
            Err(Errno::NOENT) => Err(RootsError::NoUpper { id: id.to_owned() }),
            Err(error) => Err(at("open", &upper)(error.into())),
        }
    }

    fn adopt(&self, ids: &[String]) -> Result<(), RootsError> {
        ids.iter().try_for_each(|id| check_id(id))
    }

    fn rest(&self, id: &str) -> Result<(), RootsError> {
        check_id(id)
    }

    fn abandon(&self, id: &str) -> Result<(), RootsError> {
        check_id(id)
    }

    fn remove(&self, id: &str) -> Result<bool, RootsError> {
        let upper = self.upper(id)?;
        let doomed = self.aside(DOOMED, id);
        match fs::rename(&upper, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(at("remove", &upper)(source)),
        }
        kiln_failpoint::reach("upper.doomed").map_err(at("remove", &doomed))?;
        removal::remove_tree(&doomed)?;
        Ok(true)
    }

    fn list(&self) -> Result<Vec<String>, RootsError> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(at("read", &self.dir))? {
            let entry = entry.map_err(at("read", &self.dir))?;
            if let Some(name) = entry.file_name().to_str()
                && check_id(name).is_ok()
                && entry.file_type().map_err(at("look at", &entry.path()))?.is_dir()
            {
                ids.push(name.to_owned());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn usage(&self, id: &str) -> Result<Usage, RootsError> {
        let path = self.path(id)?;
        let look = |action: &'static str| {
            let path = path.to_path_buf();
            move |error: Errno| at(action, &path)(error.into())
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = openat(CWD, &*path, flags, Mode::empty()).map_err(look("open"))?;
        let mut usage = Usage::default();
        let mut linked = HashSet::new();
        let mut pending = vec![PathBuf::from(".")];
        while let Some(below) = pending.pop() {
            // A running sandbox changes what is being counted, and could put a link to anywhere in the
            // place of a directory.
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let directory = match openat2(&top, &below, flags, Mode::empty(), resolve) {
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => continue,
                other => other.map_err(look("read a directory below"))?,
            };
            let own = fstat(&directory).map_err(look("look at a directory below"))?;
            usage.add(&own);
            for entry in Dir::read_from(&directory).map_err(look("read a directory below"))? {
                let entry = entry.map_err(look("read a directory below"))?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let found = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    other => other.map_err(look("look at a file below"))?,
                };
                if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                    pending.push(below.join(OsStr::from_bytes(name.to_bytes())));
                } else if found.st_nlink == 1 || linked.insert(found.st_ino) {
                    usage.add(&found);
                }
            }
        }
        Ok(usage)
    }
}

impl Usage {
    fn add(&mut self, found: &Stat) {
        self.bytes += found.st_blocks.cast_unsigned() * 512;
        self.inodes += 1;
    }
}
