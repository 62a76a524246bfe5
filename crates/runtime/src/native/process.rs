//! Naming a process so that it is found again, and never taken for another.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The id of this boot.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// When a process started, in clock ticks since the boot.
pub(super) fn start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start_time(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The second field is the program's name in parentheses, and may hold anything.
fn parse_start_time(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Opens a process if it is still the one that started at `started`.
pub(super) fn open(pid: u32, started: u64) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::NONBLOCK).ok()?;
    // The descriptor names one process for good. The time is read after it was opened, and counts only
    // if that process had not ended by then: else the number may be another's already.
    let same = start_time(pid).is_ok_and(|time| time == started);
    (same && !has_ended(&pidfd)).then_some(pidfd)
}

/// Whether a process has ended.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let fields = "S 1 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3";
        for name in ["agent", "a b", ") S 1 2", "((("] {
            let stat = format!("42 ({name}) {fields}");
            assert_eq!(parse_start_time(&stat), Some(987_654), "{stat}");
        }
        assert_eq!(parse_start_time("42 (cut off) S 1"), None);
    }

    #[test]
    fn finds_only_the_same_process() {
        let own = std::process::id();
        let started = start_time(own).unwrap();
        assert!(open(own, started).is_some());
        assert!(open(own, started + 1).is_none());
    }
}
