//! `mount_setattr(MOUNT_ATTR_IDMAP)`, which rustix does not have.

#![allow(unsafe_code, reason = "a system call without a wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Maps the owners of a detached mount by a user namespace.
pub(crate) fn map_owners(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    const IDMAP: u64 = 0x0010_0000;
    // struct mount_attr: set, clear, propagation, user namespace.
    let attributes: [u64; 4] = [IDMAP, 0, 0, userns.as_raw_fd() as u64];
    // SAFETY: the path is a string, and the structure is as long as is said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
