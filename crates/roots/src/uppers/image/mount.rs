//! Mounts of the file system in an image, none of them at a place where anybody could see it.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, statat, unlinkat};
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
    // Space that is freed inside goes back to the host. The inode tables are holes of the image, which
    // read as the zeros that they would be filled with. A file system that met an error takes no more
    // writes: what it would make of them is anybody's guess.
    for flag in ["discard", "noinit_itable"] {
        fsconfig_set_flag(&context, flag).map_err(explain("fsconfig(discard, noinit_itable)"))?;
    }
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

/// Ends the file system of a mount; nothing of what was not written yet is written any more.
pub(super) fn abandon(mount: &OwnedFd) -> Result<(), Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = openat(mount, ".", flags, Mode::empty()).map_err(Failure::of("open"))?;
    sys::ext4_shut_down(top.as_fd()).map_err(Failure::of("ioctl(EXT4_IOC_SHUTDOWN)"))
}
