//! Making processes: `fork` and `clone3`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::Pid;

/// Does not fit the type that the C library's binding gives it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process that was made.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its number, as the caller's PID namespace has it.
    pub(crate) pid: Pid,
    /// A descriptor of it (close-on-exec).
    pub(crate) pidfd: OwnedFd,
}

/// Makes a process that runs `body` and ends with the code that it returns (101 after a panic).
///
/// `namespaces` is an or of `CLONE_NEW*`. With `cgroup` (the directory of a version 2 group) the
/// process is born in that group. The child has a copy of every descriptor and of the memory, and of
/// the caller's threads only the calling one.
pub(crate) fn spawn(
    namespaces: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce() -> u8,
) -> io::Result<Child> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain integers, for which zero is the value of "not wanted".
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    arguments.flags = (libc::CLONE_PIDFD | namespaces) as u32 as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(group) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and with no stack given this is a fork: the child goes on with its own
    // copy of all memory. `arguments` and `pidfd` outlive the call, and the size given is theirs.
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, mem::size_of::<libc::clone_args>())
    };
    match result {
        0 => end_with(body),
        -1 => Err(io::Error::last_os_error()),
        number => {
            let pid = Pid::from_raw(number as i32).expect("the kernel gives positive numbers");
            // SAFETY: the call succeeded, so the kernel stored a descriptor there that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid, pidfd })
        }
    }
}

/// As [`spawn`] without anything special, through the C library: it leaves the copy with a usable
/// allocator even if the caller has threads. Gives the number of the copy.
pub(crate) fn fork(body: impl FnOnce() -> u8) -> io::Result<Pid> {
    // SAFETY: the child goes on with its own copy of all memory. What other threads may have locked is
    // the caller's concern; the daemon calls this before it has any.
    match unsafe { libc::fork() } {
        0 => end_with(body),
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid).expect("fork gives the number of a process")),
    }
}

/// Runs `body` as all that is left of this process. No exit handler and no destructor of the
/// process that was copied runs.
fn end_with(body: impl FnOnce() -> u8) -> ! {
    let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
    // SAFETY: ends the process; nothing can be observed afterwards.
    unsafe { libc::_exit(i32::from(code)) }
}
