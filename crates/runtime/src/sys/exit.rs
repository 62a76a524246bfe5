//! How a process ended that is not a child.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct pidfd_info` of the kernel, in its first form.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`.
const EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: u64 = 3 << 30 | (mem::size_of::<Info>() as u64) << 16 | 0xff << 8 | 0x0b;

/// The wait status of a process that has ended and was reaped; `None` before that, and on kernels
/// before Linux 6.15.
pub(crate) fn wait_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the number of the request says how long the structure is.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, &raw mut info) };
    (result == 0 && info.mask & EXIT != 0).then_some(info.exit_code)
}
