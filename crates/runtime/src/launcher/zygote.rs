//! The launcher process itself.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::channel::Channel;
use super::message::{Report, Task};
use super::parked::{self, Order};
use super::skeleton;
use super::step::{Failure, Step};
use crate::seccomp::Filter;
use crate::sys;

/// What errors call this process.
pub(super) const NAME: &str = "the launcher";

/// Runs until the daemon closes its end of `channel`. Returns the exit code.
pub(super) fn run(channel: &Channel) -> u8 {
    // The copy of the daemon's memory still owns descriptors that are closed below; they must not be
    // dropped, and are not: this process ends without unwinding.
    let channel = match leave_descriptors(channel) {
        Ok(channel) => channel,
        Err(failure) => return report(channel, Report::Failed(failure), 1),
    };
    if let Err(failure) = set_up() {
        return report(&channel, Report::Failed(failure), 1);
    }
    let filter = Filter::new();
    if report(&channel, Report::Ready, 0) != 0 {
        return 1;
    }
    while let Ok(Some((task, fds))) = channel.receive() {
        let mut fds = fds.into_iter();
        let Some(control) = fds.next().map(Channel::from_socket) else { continue };
        match task {
            Task::Park { id_base } => {
                park(&control, fds.next(), &Order { id_base, filter: &filter });
            }
            Task::Keep { name } => {
                let file = fds.next().ok_or_else(|| Failure::new("take a file", libc::EBADF));
                let kept = file.and_then(|file| skeleton::keep(&name, file));
                report(&control, kept.map_or_else(Report::Failed, |()| Report::Ready), 0);
            }
        }
    }
    0
}

fn park(control: &Channel, cgroup: Option<OwnedFd>, order: &Order<'_>) {
    let child = sys::spawn(0, cgroup.as_ref().map(AsFd::as_fd), || {
        sys::close_all_but(3, control.as_fd()).map_or(1, |()| parked::run(control, order))
    });
    if let Err(failure) = child.step("fork a process to park") {
        report(control, Report::Failed(failure), 1);
    }
}

fn set_up() -> Result<(), Failure> {
    rustix::thread::set_name(c"kiln-launcher").step("name the launcher")?;
    rustix::process::setsid().step("leave the daemon's session")?;
    rustix::process::chdir("/").step("change to the root directory")?;
    rustix::process::umask(Mode::empty());
    skeleton::enter()?;
    // Sandboxes whose parked process has ended become children of this process.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .step("become the reaper of sandboxes")?;
    sys::ignore_child_signals();
    Ok(())
}

/// Closes every descriptor but the link to the daemon.
fn leave_descriptors(channel: &Channel) -> Result<Channel, Failure> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .step("open /dev/null")?;
    dup2_stdin(&null).step("replace the standard input")?;
    dup2_stdout(&null).step("replace the standard output")?;
    dup2_stderr(&null).step("replace the standard error")?;
    drop(null);
    let copy = rustix::io::fcntl_dupfd_cloexec(channel.as_fd(), 3).step("keep the link")?;
    sys::close_all_but(3, copy.as_fd()).step("close the daemon's descriptors")?;
    Ok(Channel::from_socket(copy))
}

fn report(channel: &Channel, report: Report, code: u8) -> u8 {
    // Without a listener there is nobody to tell, and nothing to do but to end.
    channel.send(&report, &[]).map_or(1, |()| code)
}
