//! A sandbox's PID 1, from its birth to the exec of the agent.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{chdir, fchdir, pivot_root};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::channel::Channel;
use super::kernel_files::mount_proc;
use super::message::{Launch, Report};
use super::mounts::{PLAIN, Setting, attach, copy, directory, directory_in, entry_in, filesystem};
use super::privileges::{drop_all, limit_resources};
use super::skeleton::ROOT;
use super::step::{Failure, Step};
use crate::seccomp::Filter;
use crate::sys;

/// What errors call this process.
pub(super) const NAME: &str = "the sandbox's first process";

/// The descriptor on which the agent finds its listening socket.
const LISTENER: i32 = 3;

/// How many terminals a sandbox may have open. The kernel has 4096 for all that are not the host's own,
/// and one sandbox is not to take them from the others.
pub(crate) const TERMINALS: &str = "256";

/// How many bytes of `/dev/shm` go with one file in it. Empty files take memory of the kernel's that the
/// sandbox pays for: without a bound they would fill all that it has, and nothing could be killed to
/// get it back.
const BYTES_PER_FILE: u64 = 16 * 1024;

/// What PID 1 starts with.
pub(super) struct Start<'a> {
    pub(super) launch: &'a Launch,
    pub(super) agent: BorrowedFd<'a>,
    pub(super) listener: BorrowedFd<'a>,
    pub(super) filter: &'a Filter,
}

/// Becomes the agent. Returns only when that failed, with the exit code.
pub(super) fn run(control: &Channel, start: &Start<'_>) -> u8 {
    let Err(failure) = become_agent(control, start);
    // The daemon may be gone; then this sandbox ends with the process, as it should.
    drop(control.send(&Report::Failed(failure), &[]));
    1
}

fn become_agent(control: &Channel, start: &Start<'_>) -> Result<std::convert::Infallible, Failure> {
    let hostname = start.launch.hostname.as_bytes();
    rustix::system::sethostname(hostname).step("set the host name")?;
    rustix::process::setsid().step("make a session")?;
    enter_root(start.launch)?;
    limit_resources()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    sys::default_signals().step("reset the signals")?;
    let agent = leave_descriptors(control, start)?;
    let arguments = ["/sbin/agent", "--listen-fd", "3"].map(String::from);
    let arguments = strings(&arguments, "pass the agent's arguments")?;
    let environment = strings(&start.launch.env, "pass the environment")?;
    drop_all(start.filter, start.launch.no_new_privs)?;
    agent.control.send(&Report::Executing, &[]).step("report to the daemon")?;
    let error = sys::execute(agent.program.as_fd(), &arguments, &environment);
    Err(error).step("execute the agent")
}

/// Mounts what only a process in the sandbox's namespaces can mount, and makes its root the root.
fn enter_root(launch: &Launch) -> Result<(), Failure> {
    // What came from the host's namespace is locked in place, and cannot be pivoted to; a copy can.
    let place = directory(ROOT).step("open the root")?;
    let root = copy(place.as_fd(), "", true).step("copy the root's mounts")?;
    attach(root.as_fd(), place.as_fd()).step("attach the copy of the root")?;
    fchdir(&root).step("enter the root")?;
    mount_devices(root.as_fd(), launch.shm_bytes)?;
    let proc = directory_in(root.as_fd(), "/proc").step("find the directory /proc in the image")?;
    let null = entry_in(root.as_fd(), "/dev/null").step("find /dev/null")?;
    let null = null.ok_or_else(|| Failure::new("find /dev/null", libc::ENOENT))?;
    mount_proc(proc.as_fd(), null.as_fd())?;
    pivot_root(".", ".").step("make it the root")?;
    // Both roots are now at the same place, the launcher's on top.
    unmount(".", UnmountFlags::DETACH).step("leave the launcher's files")?;
    chdir("/").step("enter the root")
}

fn mount_devices(root: BorrowedFd<'_>, shm_bytes: u64) -> Result<(), Failure> {
    let shm = shm_bytes.to_string();
    let shm_files = (shm_bytes / BYTES_PER_FILE).to_string();
    let no_programs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mounts: [(&str, &str, &[Setting<'_>], MountAttrFlags); 3] = [
        (
            "devpts",
            "/dev/pts",
            &[
                ("newinstance", ""),
                ("gid", "5"),
                ("mode", "620"),
                ("ptmxmode", "666"),
                ("max", TERMINALS),
            ],
            no_programs,
        ),
        (
            "tmpfs",
            "/dev/shm",
            &[("size", &shm), ("nr_inodes", &shm_files), ("mode", "1777")],
            PLAIN,
        ),
        ("mqueue", "/dev/mqueue", &[], PLAIN),
    ];
    for (kind, path, options, flags) in mounts {
        let mount = filesystem(kind, options, flags).step(&format!("mount {path}"))?;
        let target = directory_in(root, path).step(&format!("find {path}"))?;
        attach(mount.as_fd(), target.as_fd()).step(&format!("attach {path}"))?;
    }
    Ok(())
}

/// Descriptors that live until the exec.
struct Kept {
    control: Channel,
    program: OwnedFd,
}

/// Arranges the descriptors as the agent expects them: nothing on 0 to 2, its socket on 3, no other.
fn leave_descriptors(control: &Channel, start: &Start<'_>) -> Result<Kept, Failure> {
    // Out of the way of the numbers that are assigned below.
    let high = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, LISTENER + 1);
    let control = high(control.as_fd()).step("keep the link")?;
    let program = high(start.agent).step("keep the agent's program")?;
    let listener = high(start.listener).step("keep the agent's socket")?;
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .step("open /dev/null")?;
    dup2_stdin(&null).step("replace the standard input")?;
    dup2_stdout(&null).step("replace the standard output")?;
    dup2_stderr(&null).step("replace the standard error")?;
    sys::duplicate_to(listener.as_fd(), LISTENER).step("place the agent's socket")?;
    sys::mark_close_on_exec(LISTENER as u32 + 1).step("close other descriptors")?;
    Ok(Kept { control: Channel::from_socket(control), program })
}

fn strings(from: &[String], step: &str) -> Result<Vec<CString>, Failure> {
    let convert = |text: &String| CString::new(text.as_bytes());
    from.iter().map(convert).collect::<Result<_, _>>().map_err(|_| Failure::new(step, libc::EINVAL))
}
