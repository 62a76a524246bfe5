//! What a sandbox may see and change of `/proc` and `/sys`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mounts::{PLAIN, attach, copy, directory, directory_in, entry_in, filesystem, restrict};
use super::skeleton::SYS;
use super::step::{Failure, Step};

/// Below `/proc`: what says something about the host or lets it be changed. The container engines'
/// list.
pub(crate) const PROC_HIDDEN: [&str; 12] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
];
/// Below `/proc`: for reading only.
pub(crate) const PROC_READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
/// Below `/sys`.
const SYS_HIDDEN: [&str; 3] = ["firmware", "devices/virtual/powercap", "kernel/debug"];
/// Below `/sys`: a directory for each CPU, in which `THROTTLE` is hidden as well. Counts of events that
/// programs on the same CPU bring about tell them apart.
const CPUS: &str = "devices/system/cpu";
const THROTTLE: &str = "thermal_throttle";

/// Mounts the `/sys` of the network namespace that this process is in, read-only.
pub(super) fn mount_sys() -> Result<(), Failure> {
    let read_only = PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let sys = filesystem("sysfs", &[], read_only).step("mount /sys")?;
    let target = directory(SYS).step("find /sys")?;
    attach(sys.as_fd(), target.as_fd()).step("attach /sys")?;
    let throttles = throttles(sys.as_fd()).step("look for the CPUs in /sys")?;
    let hidden: Vec<&str> =
        SYS_HIDDEN.into_iter().chain(throttles.iter().map(String::as_str)).collect();
    hide(sys.as_fd(), "/sys", &hidden, None)
}

/// The paths below `/sys` that tell when a CPU was too hot.
fn throttles(sys: BorrowedFd<'_>) -> std::io::Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cpus = match openat(sys, CPUS, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let mut paths = Vec::new();
    for entry in Dir::read_from(&cpus)? {
        let entry = entry?;
        let Some(number) =
            entry.file_name().to_str().ok().and_then(|name| name.strip_prefix("cpu"))
        else {
            continue;
        };
        let path = format!("cpu{number}/{THROTTLE}");
        if number.parse::<u32>().is_ok() && statat(&cpus, &path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
        {
            paths.push(format!("{CPUS}/{path}"));
        }
    }
    Ok(paths)
}

/// Mounts the `/proc` of the PID namespace that this process is in on `target`. `null` is a null
/// device, which takes the place of hidden files.
pub(super) fn mount_proc(target: BorrowedFd<'_>, null: BorrowedFd<'_>) -> Result<(), Failure> {
    let proc = filesystem("proc", &[], PLAIN).step("mount /proc")?;
    attach(proc.as_fd(), target).step("attach /proc")?;
    hide(proc.as_fd(), "/proc", &PROC_HIDDEN, Some(null))?;
    for name in PROC_READ_ONLY {
        let step = format!("make /proc/{name} read-only");
        let Some(place) = place(proc.as_fd(), name).step(&step)? else { continue };
        let view = copy(place.as_fd(), "", false).step(&step)?;
        restrict(view.as_fd(), PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY).step(&step)?;
        attach(view.as_fd(), place.as_fd()).step(&step)?;
    }
    Ok(())
}

/// Covers files by `null` and directories by an empty directory. What this kernel does not have is
/// left out.
fn hide(
    top: BorrowedFd<'_>,
    shown: &str,
    names: &[&str],
    null: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    let read_only = PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mut empty: Option<OwnedFd> = None;
    for name in names {
        let step = format!("hide {shown}/{name}");
        if let Ok(place) = directory_in(top, name) {
            let cover = match &empty {
                Some(empty) => copy(empty.as_fd(), "", false),
                None => filesystem("tmpfs", &[("size", "0"), ("nr_inodes", "1")], read_only),
            }
            .step(&step)?;
            attach(cover.as_fd(), place.as_fd()).step(&step)?;
            empty.get_or_insert(cover);
        } else if let (Some(null), Some(place)) = (null, entry_in(top, name).step(&step)?) {
            let cover = copy(null, "", false).step(&step)?;
            attach(cover.as_fd(), place.as_fd()).step(&step)?;
        }
    }
    Ok(())
}

fn place(top: BorrowedFd<'_>, name: &str) -> std::io::Result<Option<OwnedFd>> {
    match directory_in(top, name) {
        Ok(directory) => Ok(Some(directory)),
        Err(_) => entry_in(top, name),
    }
}
