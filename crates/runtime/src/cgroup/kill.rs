//! Killing everything in a group.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::control::{Patience, is_missing, read_pids, write_if_there};
use super::freeze::wait_event;
use super::{CgroupError, Group};

/// How long freezing may take on the way to a kill; without it things die as well.
const FREEZE: Duration = Duration::from_millis(200);
/// How often a group is gone through that grows while it is being killed.
const ROUNDS: usize = 1000;

impl Group {
    /// Kills everything in the group, frozen or not, and returns when all of it has been told to die
    /// ([`Group::wait_empty`] waits for that). The group takes no more processes afterwards.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.killed.store(true, Ordering::Release);
        // Signals alone could be outrun by something that starts processes all the time.
        let at_once = self.kill_v2()?;
        let held = !at_once && self.freeze(FREEZE).is_ok();
        // What is not in the version 2 group, or when the kernel cannot kill it as a whole.
        self.signal_all()?;
        if held {
            // Frozen by version 1, the dead do not die.
            self.thaw(FREEZE)?;
        }
        Ok(())
    }

    /// Waits until nothing is left in the group.
    pub fn wait_empty(&self, deadline: Duration) -> Result<(), CgroupError> {
        let patience = Patience::new(deadline);
        if let Some(path) = self.v2.as_ref().filter(|path| path.is_dir()) {
            match wait_event(path, "populated", 0, "empty", deadline) {
                Err(CgroupError::File { source, .. }) if is_missing(&source) => {}
                other => other?,
            }
        }
        while !self.pids()?.is_empty() {
            let step = patience.step().ok_or_else(|| patience.timeout(self.path(), "empty"))?;
            std::thread::sleep(step);
        }
        Ok(())
    }

    /// Kills what is in the version 2 group; says whether the kernel can do that.
    fn kill_v2(&self) -> Result<bool, CgroupError> {
        match &self.v2 {
            Some(path) => write_if_there(&path.join("cgroup.kill"), "1"),
            None => Ok(false),
        }
    }

    /// Signals every process until no more show up. One that was signalled starts no others.
    fn signal_all(&self) -> Result<(), CgroupError> {
        let mut signalled = HashSet::new();
        for _ in 0..ROUNDS {
            let before = signalled.len();
            for path in self.directories() {
                let procs = path.join("cgroup.procs");
                for pid in members(&procs)? {
                    if !signalled.contains(&pid) && signal(&procs, pid)? {
                        signalled.insert(pid);
                    }
                }
            }
            if signalled.len() == before {
                break;
            }
        }
        Ok(())
    }
}

fn members(procs: &Path) -> Result<Vec<u32>, CgroupError> {
    match read_pids(procs) {
        Err(CgroupError::File { source, .. }) if is_missing(&source) => Ok(Vec::new()),
        other => other,
    }
}

/// Numbers are used again: only once a process is held is it certain that the list meant this one.
fn signal(procs: &Path, pid: u32) -> Result<bool, CgroupError> {
    let Some(handle) =
        Pid::from_raw(pid as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return Ok(false);
    };
    let member = members(procs)?.contains(&pid);
    Ok(member && pidfd_send_signal(&handle, Signal::KILL).is_ok())
}
