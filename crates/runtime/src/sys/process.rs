//! What a process of one thread does to itself.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Every signal does its default again, and none is blocked. Ignored signals survive an exec, so a
/// program that is started must not inherit them.
pub(crate) fn default_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // The C library keeps two signals to itself and refuses; KILL and STOP cannot be changed.
        // SAFETY: sets a disposition, no handler of ours is involved.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    let result = unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Children that end are reaped by the kernel.
pub(crate) fn ignore_child_signals() {
    // SAFETY: sets a disposition, no handler of ours is involved.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Every descriptor from `first` up is closed by the next exec.
pub(crate) fn mark_close_on_exec(first: u32) -> io::Result<()> {
    // SAFETY: only sets a flag on descriptors.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from `first` up, except `kept`. Values that own one of them must be
/// neither used nor dropped afterwards: for a process that is about to become something else.
pub(crate) fn close_all_but(first: u32, kept: BorrowedFd<'_>) -> io::Result<()> {
    let kept = kept.as_raw_fd() as u32;
    for (from, to) in [(first, kept.saturating_sub(1)), (kept + 1, u32::MAX)] {
        if from > to {
            continue;
        }
        // SAFETY: closes descriptors, which the caller knows to be out of use.
        let result = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes `number` another descriptor of what `fd` is, one that survives an exec. `number` must not
/// belong to any value.
pub(crate) fn duplicate_to(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: the caller knows that nobody owns `number`.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if result == number { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves this thread into a copy of its mount namespace.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: the table of descriptors is not unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(io::Error::from)
}
