//! Freezing and thawing.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::control::{Patience, failed, keyed, read, write, write_if_there};
use super::{CgroupError, Group};

impl Group {
    /// Stops everything in the group from running, and waits until it has stopped. Freezing twice is
    /// the same as once.
    ///
    /// # Errors
    /// [`CgroupError::Timeout`] when something does not stop (it waits for a device, or is being
    /// traced); all of it then runs on.
    pub fn freeze(&self, deadline: Duration) -> Result<(), CgroupError> {
        let frozen = self.switch(true, deadline);
        if matches!(frozen, Err(CgroupError::Timeout { .. })) {
            self.switch(false, deadline)?;
        }
        frozen
    }

    /// Lets everything in the group run on.
    pub fn thaw(&self, deadline: Duration) -> Result<(), CgroupError> {
        self.switch(false, deadline)
    }

    fn switch(&self, frozen: bool, deadline: Duration) -> Result<(), CgroupError> {
        let state = if frozen { "frozen" } else { "thawed" };
        let number = if frozen { "1" } else { "0" };
        if let Some(path) = &self.v2
            && write_if_there(&path.join("cgroup.freeze"), number)?
        {
            return wait_event(path, "frozen", u64::from(frozen), state, deadline);
        }
        let Some(path) = self.v1_of("freezer") else {
            return Err(CgroupError::NoFreezer { path: self.path() });
        };
        switch_v1(path, if frozen { "FROZEN" } else { "THAWED" }, state, deadline)
    }
}

/// Version 1 has no notification. A process that was being started may also have slipped through, so
/// that the word has to be said again (see the kernel's documentation of the freezer).
fn switch_v1(
    path: &Path,
    word: &str,
    state: &'static str,
    deadline: Duration,
) -> Result<(), CgroupError> {
    let file = path.join("freezer.state");
    let patience = Patience::new(deadline);
    loop {
        write(&file, word)?;
        if read(&file)?.trim() == word {
            return Ok(());
        }
        let step = patience.step().ok_or_else(|| patience.timeout(path.into(), state))?;
        std::thread::sleep(step);
    }
}

/// Waits until a line of a version 2 group's `cgroup.events` has a value.
pub(super) fn wait_event(
    group: &Path,
    key: &'static str,
    value: u64,
    state: &'static str,
    deadline: Duration,
) -> Result<(), CgroupError> {
    let path = group.join("cgroup.events");
    let file = File::open(&path).map_err(failed("open", &path))?;
    let patience = Patience::new(deadline);
    loop {
        let mut buffer = [0; 256];
        let length = file.read_at(&mut buffer, 0).map_err(failed("read", &path))?;
        let content = String::from_utf8_lossy(&buffer[..length]);
        match keyed(&content, key) {
            Some(found) if found == value => return Ok(()),
            Some(_) => {}
            None => {
                let content = content.trim_end().into();
                return Err(CgroupError::Content { path, content, expected: key });
            }
        }
        let step = patience.step().ok_or_else(|| patience.timeout(group.into(), state))?;
        // The kernel tells of changes, but holds those back that follow another within 10 ms: the step
        // ends the wait in any case, as does a signal.
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(step.subsec_nanos()) };
        let _ = rustix::event::poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&timeout));
    }
}
