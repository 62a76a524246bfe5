//! The system calls that have no safe form elsewhere.
#![allow(unsafe_code, reason = "mount_setattr, setfs[ug]id and ioctls have no safe wrapper")]

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
    set_attributes(mount, &attributes)
}

/// Makes a detached mount read-only, and its device nodes dead.
pub(crate) fn restrict(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    set_attributes(mount, &attributes)
}

/// `attributes` may name a user namespace by a descriptor that is open for the length of the call.
fn set_attributes(mount: BorrowedFd<'_>, attributes: &libc::mount_attr) -> io::Result<()> {
    // SAFETY: the mount's descriptor is open for the length of the call, the path is a NUL-terminated
    // static string, and the structure is valid and of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attributes),
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

/// Takes this thread into a copy of its mount namespace, with a working directory of its own.
///
/// There is no way back: the thread must be one that ends after its work.
pub(crate) fn own_mount_namespace() -> rustix::io::Result<()> {
    // SAFETY: a new mount namespace, and with it its own root and working directory, concern the calling
    // thread only; descriptors and memory stay shared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
}

/// The number of a loop device that nobody uses at this moment.
pub(crate) fn loop_get_free(control: BorrowedFd<'_>) -> io::Result<u32> {
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
    // SAFETY: the descriptor is open for the length of the call, which takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const NO_INFO: LoopInfo = LoopInfo {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

const LOOP_DIRECT_IO: u32 = 16;

/// Puts `file` behind a loop device, with direct I/O, until the last user of the device is gone. A
/// kernel may leave the direct I/O out without a word: [`loop_backing`] tells.
pub(crate) fn loop_configure(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    block_size: u32,
) -> io::Result<()> {
    const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
    const AUTOCLEAR: u32 = 4;
    let flags = AUTOCLEAR | LOOP_DIRECT_IO;
    let config = LoopConfig {
        fd: file.as_raw_fd().cast_unsigned(),
        block_size,
        info: LoopInfo { flags, ..NO_INFO },
        reserved: [0; 8],
    };
    // SAFETY: both descriptors are open for the length of the call, and the structure is the one that
    // the call reads.
    let result =
        unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, std::ptr::from_ref(&config)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What is behind a loop device.
pub(crate) struct LoopBacking {
    /// The device and inode numbers of the file.
    pub(crate) file: (u64, u64),
    /// Whether it is read and written around the host's page cache.
    pub(crate) direct: bool,
}

/// The file behind a loop device; `ENXIO` if there is none.
pub(crate) fn loop_backing(device: BorrowedFd<'_>) -> io::Result<LoopBacking> {
    const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
    let mut info = NO_INFO;
    // SAFETY: the descriptor is open for the length of the call, and the structure is the one that the
    // call writes.
    let result = unsafe {
        libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, std::ptr::from_mut(&mut info))
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let direct = info.flags & LOOP_DIRECT_IO != 0;
    Ok(LoopBacking { file: (info.device, info.inode), direct })
}

/// `struct fstrim_range` of linux/fs.h.
#[repr(C)]
struct TrimRange {
    start: u64,
    length: u64,
    least: u64,
}

/// Gives back to the disk what is free in a file system; answers how many bytes.
pub(crate) fn trim(directory: BorrowedFd<'_>) -> io::Result<u64> {
    const FITRIM: libc::Ioctl = 0xC018_5879_u32 as libc::Ioctl;
    let mut range = TrimRange { start: 0, length: u64::MAX, least: 0 };
    // SAFETY: the descriptor is open for the length of the call, which reads and writes the structure.
    let result =
        unsafe { libc::ioctl(directory.as_raw_fd(), FITRIM, std::ptr::from_mut(&mut range)) };
    if result == 0 { Ok(range.length) } else { Err(io::Error::last_os_error()) }
}

/// Ends an ext4 file system at once: nothing more of it reaches its disk.
pub(crate) fn ext4_shut_down(directory: BorrowedFd<'_>) -> io::Result<()> {
    const EXT4_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587D;
    const NO_LOG_FLUSH: u32 = 2;
    // SAFETY: the descriptor is open for the length of the call, which reads one number.
    let result = unsafe {
        libc::ioctl(directory.as_raw_fd(), EXT4_IOC_SHUTDOWN, std::ptr::from_ref(&NO_LOG_FLUSH))
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
