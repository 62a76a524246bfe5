//! Opening what is in a laid-out layer: below its root, and through nothing that could lead out.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// How every path of a layer is resolved.
pub(super) const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Bytes of a path that one call is given; the kernel takes 4095.
const AT_ONCE: usize = 2048;

/// Opens the directory at `path`, however long that is.
pub(super) fn open_directory(tree: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |from: &OwnedFd, path: &Path| openat2(from, path, flags, Mode::empty(), INSIDE);
    if path.as_os_str().is_empty() {
        return open(tree, Path::new("."));
    }
    if path.as_os_str().len() <= AT_ONCE {
        return open(tree, path);
    }
    let mut reached: Option<OwnedFd> = None;
    let mut part = PathBuf::new();
    let mut step = |part: &Path| {
        reached = Some(open(reached.as_ref().unwrap_or(tree), part)?);
        Ok::<_, Errno>(())
    };
    for component in path.components() {
        let Component::Normal(name) = component else { return Err(Errno::INVAL) };
        if part.as_os_str().len() + name.len() > AT_ONCE {
            step(&part)?;
            part.clear();
        }
        part.push(name);
    }
    step(&part)?;
    reached.ok_or(Errno::INVAL)
}

/// A path for those calls that have no form with a descriptor and a name. It leads through the
/// descriptor, and its last component is not followed by the calls it is for.
pub(super) fn spelled(directory: impl AsFd, name: &OsStr) -> PathBuf {
    fn number(directory: BorrowedFd<'_>) -> i32 {
        directory.as_raw_fd()
    }
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", number(directory.as_fd())));
    path.push(name);
    path
}

/// A path in a layer as people are shown it.
pub(super) fn shown(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        return "/".to_owned();
    }
    let mut shown = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        shown.extend(chunk.valid().escape_debug());
        for byte in chunk.invalid() {
            shown.extend(format!("\\x{byte:02x}").chars());
        }
    }
    shown
}
