//! Removal of a tree that somebody hostile may have made.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, openat,
    renameat, unlinkat,
};
use rustix::io::Errno;

use crate::RootsError;

/// How deep the walk goes before it moves what is deeper up to the top. One descriptor a level.
const DEPTH: u32 = 100;

/// Removes the directory `top` and everything below it. Symbolic links are removed, never followed.
///
/// A directory below [`DEPTH`] is moved up to `top` before its content is looked at, so neither the
/// depth of the tree nor the length of its paths matters. Trees of ordinary depth are removed without
/// moving anything, which a full disk may not allow.
pub(crate) fn remove_tree(top: &Path) -> Result<(), RootsError> {
    let fail = |source: io::Error| RootsError::Io {
        action: "remove everything below",
        path: top.to_owned(),
        source,
    };
    let directory =
        openat(CWD, top, directory_flags(), Mode::empty()).map_err(|error| fail(error.into()))?;
    let mut removal = Removal { top: &directory, moved: Vec::new(), counter: 0 };
    removal.run().map_err(|error| fail(error.into()))?;
    remove(&Target::Path(top), AtFlags::REMOVEDIR).map_err(|error| fail(error.into()))
}

const fn directory_flags() -> OFlags {
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC)
}

enum Target<'a> {
    Path(&'a Path),
    Below(&'a OwnedFd, &'a CStr),
}

struct Removal<'a> {
    top: &'a OwnedFd,
    /// Directories that were moved up, by their names in `top`.
    moved: Vec<CString>,
    counter: u64,
}

impl Removal<'_> {
    fn run(&mut self) -> Result<(), Errno> {
        self.clear(self.top, 0)?;
        while let Some(name) = self.moved.pop() {
            self.descend(self.top, &name, 1)?;
        }
        Ok(())
    }

    /// Removes all that is in `directory`, which is `depth` below the top.
    fn clear(&mut self, directory: &OwnedFd, depth: u32) -> Result<(), Errno> {
        for name in names(directory)? {
            match remove(&Target::Below(directory, &name), AtFlags::empty()) {
                Ok(()) => {}
                // POSIX has EPERM for an unlinked directory, Linux EISDIR.
                Err(Errno::ISDIR | Errno::PERM) if depth < DEPTH => {
                    self.descend(directory, &name, depth + 1)?;
                }
                Err(Errno::ISDIR | Errno::PERM) => self.move_up(directory, &name)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn descend(&mut self, parent: &OwnedFd, name: &CStr, depth: u32) -> Result<(), Errno> {
        let directory = openat(parent, name, directory_flags(), Mode::empty())?;
        self.clear(&directory, depth)?;
        drop(directory);
        remove(&Target::Below(parent, name), AtFlags::REMOVEDIR)
    }

    fn move_up(&mut self, parent: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        let new = loop {
            let new = CString::new(format!(".removal-{}", self.counter)).expect("it has no NUL");
            self.counter += 1;
            // The sandbox may have used this very name at the top.
            match rustix::fs::statat(self.top, &new, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => break new,
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        };
        retry_without_marks(&Target::Below(parent, name), || {
            renameat(parent, name, self.top, &new)
        })?;
        self.moved.push(new);
        Ok(())
    }
}

fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn remove(target: &Target<'_>, flags: AtFlags) -> Result<(), Errno> {
    retry_without_marks(target, || match target {
        Target::Path(path) => unlinkat(CWD, *path, flags),
        Target::Below(directory, name) => unlinkat(directory, *name, flags),
    })
}

/// Runs `operation`; when it is refused, takes the immutable and append-only marks off the target and
/// off the directory it is in, and runs it once more.
fn retry_without_marks(
    target: &Target<'_>,
    operation: impl Fn() -> Result<(), Errno>,
) -> Result<(), Errno> {
    let refused = match operation() {
        Err(Errno::PERM | Errno::ACCESS) => Errno::PERM,
        other => return other,
    };
    let mut changed = false;
    if let Target::Below(directory, name) = target {
        changed |= clear_marks(directory)?;
        let kind = rustix::fs::statat(directory, *name, AtFlags::SYMLINK_NOFOLLOW)
            .map(|found| FileType::from_raw_mode(found.st_mode));
        // Opening anything else may block or have effects, and cannot carry the marks.
        if matches!(kind, Ok(FileType::RegularFile | FileType::Directory)) {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            changed |= clear_marks(&openat(directory, *name, flags, Mode::empty())?)?;
        }
    }
    if changed { operation() } else { Err(refused) }
}

fn clear_marks(file: &OwnedFd) -> Result<bool, Errno> {
    let marks = IFlags::IMMUTABLE | IFlags::APPEND;
    let flags = match ioctl_getflags(file) {
        Ok(flags) => flags,
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL) => return Ok(false),
        Err(error) => return Err(error),
    };
    if !flags.intersects(marks) {
        return Ok(false);
    }
    ioctl_setflags(file, flags - marks)?;
    Ok(true)
}
