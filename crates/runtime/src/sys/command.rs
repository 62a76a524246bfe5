//! What a program's process does to itself between the fork and the exec.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The surroundings that a program is started in. All that it names is opened before the fork: afterwards
/// there are only plain system calls.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// `cgroup.procs` files, open for writing, of groups to enter.
    pub(crate) groups: Vec<OwnedFd>,
    /// File systems that the program is not to see.
    pub(crate) hidden: Vec<CString>,
    /// Directories that the program is to find empty.
    pub(crate) covered: Vec<CString>,
    /// A detached mount, and the directory to attach it to.
    pub(crate) mount: Option<(OwnedFd, CString)>,
    /// What the program finds as descriptor 3.
    pub(crate) third: Option<OwnedFd>,
}

/// The number that [`Surroundings::third`] gets.
const THIRD: i32 = 3;

/// Has `command` start in `surroundings`, in a process group and a mount namespace of its own: what it
/// mounts, and what is mounted for it, is seen by nobody else and gone with the last process in there.
pub(crate) fn surround(command: &mut Command, surroundings: Surroundings) {
    command.process_group(0);
    let enter = move || enter(&surroundings);
    // SAFETY: the closure makes system calls with values that were made before the fork; it does not
    // allocate, lock or touch what other threads may have been changing.
    unsafe { command.pre_exec(enter) };
}

fn enter(surroundings: &Surroundings) -> io::Result<()> {
    for group in &surroundings.groups {
        // SAFETY: one byte is read from a static string.
        check(unsafe { libc::write(group.as_raw_fd(), c"0".as_ptr().cast(), 1) })?;
    }
    // SAFETY: this process has one thread; nothing but its own view of the mounts changes.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) } as isize)?;
    let nothing = std::ptr::null();
    let flags = libc::MS_REC | libc::MS_SLAVE;
    // SAFETY: the path is a static string; the other pointers may be null when only propagation changes.
    check(unsafe { libc::mount(nothing, c"/".as_ptr(), nothing, flags, nothing.cast()) } as isize)?;
    for path in &surroundings.hidden {
        // SAFETY: the string outlives the call.
        check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } as isize)?;
    }
    for path in &surroundings.covered {
        let (kind, options) = (c"tmpfs".as_ptr(), c"size=4k,nr_inodes=1".as_ptr());
        let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        // SAFETY: all strings outlive the call.
        let result = unsafe { libc::mount(kind, path.as_ptr(), kind, flags, options.cast()) };
        check(result as isize)?;
    }
    if let Some((mount, place)) = &surroundings.mount {
        const EMPTY_PATH: libc::c_uint = 0x4; // MOVE_MOUNT_F_EMPTY_PATH
        // SAFETY: both strings outlive the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                mount.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                place.as_ptr(),
                EMPTY_PATH,
            )
        } as isize)?;
    }
    if let Some(third) = &surroundings.third {
        let number = third.as_raw_fd();
        if number == THIRD {
            // SAFETY: only changes a flag of the descriptor.
            check(unsafe { libc::fcntl(THIRD, libc::F_SETFD, 0) } as isize)?;
        } else {
            // SAFETY: the process is a copy that is about to execute a program: nobody in it will use
            // what may have been the third descriptor.
            check(unsafe { libc::dup2(number, THIRD) } as isize)?;
        }
    }
    Ok(())
}

fn check(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
