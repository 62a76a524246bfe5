//! The root directory of an upper that nothing has been mounted on yet.
//!
//! Overlayfs shows of a root directory what the upper's has, so the upper's begins as the one below it:
//! else every change of `/` that a layer makes is lost with the next upper.

use std::os::fd::{AsFd, BorrowedFd};

use kiln_layer::Xattr;
use rustix::fs::{
    AtFlags, Dir, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown,
    fgetxattr, flistxattr, fsetxattr, fstat, futimens, openat, statat,
};
use rustix::io::Errno;

/// Gives the root of a fresh upper in `upper_dir` the attributes of `lower`, which has no id mapping.
pub(crate) fn inherit(lower: impl AsFd, upper_dir: BorrowedFd<'_>) -> Result<(), Errno> {
    // The first mount makes it, and nothing removes it.
    match statat(upper_dir, "w/work", AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        other => return other.map(drop),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let upper = openat(upper_dir, "u", flags, Mode::empty())?;
    let own = fstat(&upper)?;
    let new = (own.st_uid, own.st_gid, own.st_mode & 0o7777) == (0, 0, 0o755);
    // One that was filled before its first mount has the root that it was given.
    if !new || !is_empty(&upper)? {
        return Ok(());
    }
    let lower = openat(lower, ".", flags, Mode::empty())?;
    let found = fstat(&lower)?;
    if (found.st_uid, found.st_gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
        fchown(&upper, Some(uid), Some(gid))?;
    }
    copy_xattrs(&lower, &upper)?;
    // After the access list, which changes it.
    fchmod(&upper, Mode::from_raw_mode(found.st_mode & 0o7777))?;
    let time = Timespec { tv_sec: found.st_mtime, tv_nsec: found.st_mtime_nsec.cast_signed() };
    futimens(&upper, &Timestamps { last_access: time, last_modification: time })
}

fn is_empty(directory: impl AsFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match flistxattr(&from, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut value = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if !Xattr::is_of_image(name) {
            continue;
        }
        value.resize(64 << 10, 0);
        let length = fgetxattr(&from, name, &mut value)?;
        fsetxattr(&to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}
