//! Removing a directory with all that is in it, however deep it is.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

/// A directory on the way down from the top.
struct Level {
    name: CString,
    /// The directories in it that are still to be removed.
    left: Vec<CString>,
}

/// Removes the directory `top`; symbolic links are removed, never followed.
///
/// A guest makes trees of any depth, and the agent must survive them: this neither recurses nor keeps a
/// descriptor for each level. What is moved while this runs is not found again, which is an error.
pub(super) fn remove(top: &Path) -> Result<(), Errno> {
    let mut here = open(CWD, top)?;
    let mut left = clear(&here)?;
    let mut above: Vec<Level> = Vec::new();
    loop {
        if let Some(name) = left.pop() {
            match unlinkat(&here, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            here = open(here.as_fd(), name.as_c_str())?;
            above.push(Level { name, left: std::mem::replace(&mut left, clear(&here)?) });
        } else if let Some(level) = above.pop() {
            here = open(here.as_fd(), c"..")?;
            unlinkat(&here, &level.name, AtFlags::REMOVEDIR)?;
            left = level.left;
        } else {
            return unlinkat(CWD, top, AtFlags::REMOVEDIR);
        }
    }
}

fn open<P: rustix::path::Arg>(dir: BorrowedFd<'_>, path: P) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, path, flags, Mode::empty())
}

/// Removes what is no directory, and names what is one.
fn clear(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => directories.push(name.to_owned()),
            Err(error) => return Err(error),
        }
    }
    Ok(directories)
}
