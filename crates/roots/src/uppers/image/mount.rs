//! Mounts of the file system in an image, none of them at a place where anybody could see it.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, mkdirat, openat, statat, syncfs,
    unlinkat, utimensat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::failure::Failure;
use crate::overlay::kernel_messages;
use crate::sys;

/// A detached mount. A device that is mounted already gives one more mount of the same file system.
pub(super) fn mount(device: &OwnedFd) -> Result<OwnedFd, Failure> {
    let context =
        fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).map_err(Failure::of("fsopen(ext4)"))?;
    let explain = |step| {
        let context = context.as_fd();
        move |source: rustix::io::Errno| Failure {
            step,
            kernel: kernel_messages(context),
            source: source.into(),
        }
    };
    let source = format!("/proc/self/fd/{}", device.as_raw_fd());
    fsconfig_set_string(&context, "source", source).map_err(explain("fsconfig(source)"))?;
    // The inode tables are holes of the image, which read as the zeros that they would be filled with.
    // A file system that met an error takes no more writes: what it would make of them is anybody's
    // guess. There is no `discard`: it throws away what was deleted even when that could not be
    // committed, so that a directory which is there after all is one of zeros.
    fsconfig_set_flag(&context, "noinit_itable").map_err(explain("fsconfig(noinit_itable)"))?;
    fsconfig_set_string(&context, "errors", "remount-ro").map_err(explain("fsconfig(errors)"))?;
    fsconfig_create(&context).map_err(explain("fsconfig(create)"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(explain("fsmount"))
}

/// Has what the first use of a new file system needs read from the disk.
pub(super) fn warm_up(mount: &OwnedFd) -> Result<(), Failure> {
    const NAME: &str = "w/warm";
    mkdirat(mount, NAME, Mode::RWXU).map_err(Failure::of("mkdir"))?;
    unlinkat(mount, NAME, AtFlags::REMOVEDIR).map_err(Failure::of("rmdir"))?;
    statat(mount, "u", AtFlags::empty()).map(drop).map_err(Failure::of("stat"))
}

/// Whether the file system takes writes: one that met an error does not. What is written is the time of
/// a directory that only overlayfs uses, for which even a full one has room.
pub(super) fn is_sound(mount: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    utimensat(mount, "w", &times, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Gives back what is free in the file system; answers how many bytes.
pub(super) fn trim(mount: &OwnedFd) -> Result<u64, Failure> {
    sys::trim(top(mount)?.as_fd()).map_err(Failure::of("ioctl(FITRIM)"))
}

/// Writes all that is still in memory.
pub(super) fn sync(mount: &OwnedFd) -> Result<(), Failure> {
    syncfs(top(mount)?).map_err(Failure::of("syncfs"))
}

/// The top directory, open for more than to look at.
fn top(mount: &OwnedFd) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(mount, ".", flags, Mode::empty()).map_err(Failure::of("open"))
}

/// Ends the file system of a mount; nothing of what was not written yet is written any more.
pub(super) fn abandon(mount: &OwnedFd) -> Result<(), Failure> {
    let ended = sys::ext4_shut_down(top(mount)?.as_fd());
    ended.map_err(Failure::of("ioctl(EXT4_IOC_SHUTDOWN)"))
}
