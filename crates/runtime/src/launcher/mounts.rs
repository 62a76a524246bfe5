//! The mount interface by descriptors, in the few forms that sandboxes need.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::sys;

/// No set-user-id, no devices, no programs.
pub(super) const PLAIN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// An option of a file system. Without a value it is a flag.
pub(super) type Setting<'a> = (&'a str, &'a str);

/// A new file system as a detached mount.
pub(super) fn filesystem(
    kind: &str,
    options: &[Setting<'_>],
    flags: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

/// Attaches `mount`, detached or attached elsewhere, to `target`.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", both)?)
}

/// A detached copy of what is mounted at `path`, or of a part of it. `below` asks for all mounts
/// below it too.
pub(super) fn copy(dir: BorrowedFd<'_>, path: &str, below: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.is_empty());
    flags.set(OpenTreeFlags::AT_RECURSIVE, below);
    Ok(open_tree(dir, path, flags)?)
}

/// A detached, read-only mount of one file that the launcher keeps. Its owner 0 is that of `userns` where
/// the kernel can do that for its file system, else it belongs to nobody.
pub(super) fn clone_file(file: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mount = copy(file, "", false)?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    sys::set_mount_flags(mount.as_fd(), flags.bits().into(), false)?;
    match sys::set_mount_idmap(mount.as_fd(), userns) {
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
        _ => Ok(mount),
    }
}

/// Sets flags on a mount that is attached or not.
pub(super) fn restrict(mount: BorrowedFd<'_>, flags: MountAttrFlags) -> io::Result<()> {
    sys::set_mount_flags(mount, flags.bits().into(), false)
}

/// The directory at `path`, for the caller's own trees: no part of it is a symbolic link of others.
pub(super) fn directory(path: &str) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The directory that `path` leads to for a process whose root is `root`.
pub(super) fn directory_in(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(root, path, flags, Mode::empty(), in_root())?)
}

/// What is at `path` for a process whose root is `root`; when that is a symbolic link, the link.
/// `None` when nothing is there, or a directory.
pub(super) fn entry_in(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    use rustix::fs::FileType;
    use rustix::io::Errno;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(root, path, flags, Mode::empty(), in_root()) {
        Ok(entry) => {
            let kind = rustix::fs::statat(&entry, "", AtFlags::EMPTY_PATH)?.st_mode;
            let usable = FileType::from_raw_mode(kind) != FileType::Directory;
            Ok(usable.then_some(entry))
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Links of an image, absolute ones too, stay below the root.
fn in_root() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}
