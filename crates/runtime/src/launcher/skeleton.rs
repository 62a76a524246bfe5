//! The launcher's own small root: nothing of the host's files is in it.
//!
//! Every parked process copies this mount namespace, and every sandbox a copy of that. With the host's
//! mounts in it the copies would be slow, and a file system that the host unmounts would live on in them.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use super::mounts::{PLAIN, attach, directory, filesystem};
use super::step::{Failure, Step};
use crate::agent::binary;
use crate::sys;

/// Where a sandbox's root is put together.
pub(super) const ROOT: &str = "/root";
/// Where the sandbox's `/sys` waits.
pub(super) const SYS: &str = "/sys";
/// Where the sandbox's `/dev` waits.
pub(super) const DEV: &str = "/dev";
/// Where files that the runtime writes are.
pub(super) const FILES: &str = "/files";

/// Where the launcher keeps files that all sandboxes share.
const SHARED: &str = "/shared";
/// The name of the agent's program, which process lists in sandboxes show.
pub(super) const PROGRAM: &str = "agent";
/// The longest file that is kept.
const LONGEST: u64 = 16 << 20;

/// A file that the launcher keeps. It is a copy in memory, so that no path of the host shows in a
/// sandbox, and no file of the host can be changed through one.
pub(super) fn shared(name: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, format!("{SHARED}/{name}"), flags, Mode::empty()).step(&format!("find {name}"))
}

/// Keeps a copy of `file` as `name`.
pub(super) fn keep(name: &str, file: OwnedFd) -> Result<(), Failure> {
    let step = format!("keep a copy of {name}");
    let path = format!("{SHARED}/{name}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let copy = openat(CWD, &path, flags, Mode::from_raw_mode(0o644)).step(&step)?;
    let copied = io::copy(&mut File::from(file).take(LONGEST + 1), &mut File::from(copy));
    let result = match copied.step(&step) {
        Ok(length) if length > LONGEST => Err(Failure::new(&step, libc::EFBIG)),
        other => other.map(drop),
    };
    if result.is_err() {
        // The first error is the one to report.
        let _ = unlinkat(CWD, &path, AtFlags::empty());
    }
    result
}

/// Leaves the host's files for good.
pub(super) fn enter() -> Result<(), Failure> {
    sys::unshare_mounts().step("make a mount namespace (the daemon needs to be root)")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("make the launcher's mounts private")?;
    let tmpfs = filesystem("tmpfs", &[("size", "64k"), ("mode", "755")], PLAIN)
        .step("mount the launcher's root")?;
    let top = directory("/").step("open the root directory")?;
    attach(tmpfs.as_fd(), top.as_fd()).step("attach the launcher's root")?;
    for name in ["proc", "root", "sys", "dev", "files", "shared"] {
        mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755)).step("fill the launcher's root")?;
    }
    fchdir(&tmpfs).step("enter the launcher's root")?;
    pivot_root(".", ".").step("make it the root")?;
    // Both roots are now at the same place, the old one on top.
    unmount(".", UnmountFlags::DETACH).step("leave the host's files")?;
    chdir("/").step("enter the launcher's root")?;
    let proc = filesystem("proc", &[], PLAIN | MountAttrFlags::MOUNT_ATTR_RELATIME)
        .step("mount the launcher's /proc")?;
    let target = directory("/proc").step("find the launcher's /proc")?;
    attach(proc.as_fd(), target.as_fd()).step("attach the launcher's /proc")?;
    install_agent()
}

fn install_agent() -> Result<(), Failure> {
    let step = "write the agent's program";
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let tmpfs = filesystem("tmpfs", &[("mode", "755")], flags).step(step)?;
    let target = directory(SHARED).step(step)?;
    attach(tmpfs.as_fd(), target.as_fd()).step(step)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&tmpfs, PROGRAM, flags, Mode::from_raw_mode(0o755)).step(step)?;
    File::from(file).write_all(binary::AGENT).step(step)
}
