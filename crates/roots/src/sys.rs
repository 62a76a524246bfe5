//! The system calls that have no safe form elsewhere.
#![allow(unsafe_code, reason = "mount_setattr and setfs[ug]id have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// Gives a detached mount the id mapping of a user namespace: who owns a file on disk is shown as the
/// host id which that namespace maps to the owner.
pub(crate) fn idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.as_raw_fd() as u64,
    };
    // SAFETY: both descriptors are open for the length of the call, the path is a NUL-terminated
    // static string, and the structure is valid and of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes this thread act on files as `id`, with all the capabilities it had before.
///
/// There is no way back: the thread must be one that ends after its work.
pub(crate) fn become_file_owner(id: u32) -> io::Result<()> {
    let before = capabilities(None)?;
    // SAFETY: these calls take numbers only and change nothing but the calling thread's credentials.
    // They have no error result; the second call of each pair tells what is in force (an id of all
    // ones is never valid and so changes nothing).
    let (uid, gid) = unsafe {
        libc::setfsgid(id);
        libc::setfsuid(id);
        (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX))
    };
    if uid.cast_unsigned() != id || gid.cast_unsigned() != id {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    // Leaving fsuid 0 takes the file capabilities out of the effective set.
    let effective: CapabilitySet = before.effective & before.permitted;
    set_capabilities(None, CapabilitySets { effective, ..before })?;
    Ok(())
}
