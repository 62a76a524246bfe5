//! `mount_setattr`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct mount_attr` of the kernel.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Flags of a mount, an or of `MOUNT_ATTR_*`.
pub(crate) type MountFlags = u64;

/// Sets `flags` on the mount that `mount` is the root of; `recursive` also on all below it.
pub(crate) fn set_mount_flags(
    mount: BorrowedFd<'_>,
    flags: MountFlags,
    recursive: bool,
) -> io::Result<()> {
    apply(mount, recursive, &Attributes { set: flags, ..Attributes::default() })
}

/// Maps the owners of a detached mount by the user namespace `userns`.
pub(crate) fn set_mount_idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = Attributes {
        set: MOUNT_ATTR_IDMAP,
        userns: userns.as_raw_fd() as u64,
        ..Attributes::default()
    };
    apply(mount, false, &attributes)
}

fn apply(mount: BorrowedFd<'_>, recursive: bool, attributes: &Attributes) -> io::Result<()> {
    let how = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a string, and `attributes` is a structure of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            how,
            std::ptr::from_ref(attributes),
            mem::size_of::<Attributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
