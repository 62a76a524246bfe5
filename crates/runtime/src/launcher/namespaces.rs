//! A user namespace and a network namespace that belongs to it.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::step::{Failure, Step};
use crate::runtime::IDS_PER_SANDBOX;
use crate::sys;

/// The two.
pub(super) struct Namespaces {
    pub(super) user: OwnedFd,
    pub(super) net: OwnedFd,
}

/// Makes them with the help of a process that lives only as long as that takes.
///
/// The network namespace has to be made by a process inside: only then may the sandbox mount its
/// `/sys`, and only then do capabilities in the sandbox count in it.
pub(super) fn make(id_base: u32) -> Result<Namespaces, Failure> {
    let wanted = libc::CLONE_NEWUSER | libc::CLONE_NEWNET;
    let holder = sys::spawn(wanted, None, || {
        loop {
            rustix::event::pause();
        }
    })
    .step("make a user namespace and a network namespace")?;
    let made = map_and_open(holder.pid, id_base);
    pidfd_send_signal(&holder.pidfd, Signal::KILL).step("end the namespaces' first process")?;
    rustix::io::retry_on_intr(|| {
        waitid(WaitId::PidFd(holder.pidfd.as_fd()), WaitIdOptions::EXITED)
    })
    .step("wait for the namespaces' first process")?;
    made
}

fn map_and_open(holder: Pid, id_base: u32) -> Result<Namespaces, Failure> {
    let map = format!("0 {id_base} {IDS_PER_SANDBOX}\n");
    let process = format!("/proc/{holder}");
    for file in ["uid_map", "gid_map"] {
        write(&format!("{process}/{file}"), &map).map_err(|failure| Failure {
            step: format!("write {file} ({})", map.trim()),
            ..failure
        })?;
    }
    let open = |name: &str| {
        let mut path = process.clone();
        write!(path, "/ns/{name}").expect("a string takes everything");
        openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .step("keep the new namespaces")
    };
    Ok(Namespaces { user: open("user")?, net: open("net")? })
}

/// Writes a kernel file by one call.
pub(super) fn write(path: &str, content: &str) -> Result<(), Failure> {
    let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .step(&format!("open {path}"))?;
    rustix::io::write(&file, content.as_bytes()).step(&format!("write {path}"))?;
    Ok(())
}

/// The beginning of a kernel file, which is all of a short one.
pub(super) fn read(path: &str) -> Result<String, Failure> {
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(&format!("open {path}"))?;
    let mut content = [0; 64];
    let length = rustix::io::read(&file, &mut content).step(&format!("read {path}"))?;
    Ok(String::from_utf8_lossy(&content[..length]).into_owned())
}
