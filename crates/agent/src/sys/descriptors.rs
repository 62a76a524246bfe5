//! Descriptors, their limit, and the role of a reaper.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, getpid, getrlimit, setrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The descriptor limit as the agent found it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DescriptorLimit {
    pub(crate) soft: libc::rlim_t,
    pub(crate) hard: libc::rlim_t,
}

/// Takes a descriptor that the parent left open, and keeps it from children.
pub(crate) fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only used for this call; a number that is not open makes it fail.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open (the call above succeeded) and nothing else in this process owns it: it is
    // named by the argument that hands it over, and taken once, before anything was opened.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Raises the soft limit to the hard one: every process on a pipe costs the agent three descriptors.
pub(crate) fn raise_descriptor_limit() -> DescriptorLimit {
    let found = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: found.maximum, maximum: found.maximum };
    let _the_old_limit_serves_too = setrlimit(Resource::Nofile, raised);
    let number = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    DescriptorLimit { soft: number(found.current), hard: number(found.maximum) }
}

/// Makes orphans of processes started here children of this process, as they are of PID 1.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    if !getpid().is_init() {
        rustix::process::set_child_subreaper(Some(getpid()))?;
    }
    Ok(())
}

/// Sends a signal to every process of this PID namespace but PID 1, which the caller must be.
pub(crate) fn signal_everything(signal: i32) {
    assert!(getpid().is_init(), "only PID 1 is alone with what it may end");
    // SAFETY: kill takes two integers; none left is fine.
    unsafe {
        libc::kill(-1, signal);
    }
}

/// Sends a signal, given by its number, to the process group of `leader`; gone is fine.
pub(crate) fn signal_group(leader: i32, signal: i32) {
    assert!(leader > 1, "0 and 1 would mean other processes than those of a group");
    // SAFETY: kill takes two integers; a group or a signal that is not there makes it fail.
    unsafe {
        libc::kill(-leader, signal);
    }
}

/// Makes a descriptor non-blocking and known to the event loop.
pub(crate) fn register(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    fcntl_setfl(&descriptor, OFlags::NONBLOCK)?;
    // SAFETY: an OwnedFd keeps its number until it is dropped, and that is dropped with the AsyncFd.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest)? })
}
