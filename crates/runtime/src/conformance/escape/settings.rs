//! What a sandbox could change of the host, read before and after.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Instant, SystemTime};

/// Files whose content is the host's alone.
const FILES: [&str; 12] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/fs/binfmt_misc/status",
    "/proc/swaps",
    "/sys/kernel/uevent_helper",
    "/sys/devices/system/cpu/online",
    "/sys/fs/cgroup/memory/release_agent",
];
/// By how much the clock may differ from where it should be, in seconds: what is tried is an hour.
const CLOCK: f64 = 60.0;

/// The host as it was.
pub(super) struct Settings {
    files: BTreeMap<&'static str, Option<String>>,
    clock: SystemTime,
    at: Instant,
}

impl Settings {
    pub(super) fn read() -> Self {
        let files = FILES.map(|path| (path, fs::read_to_string(path).ok()));
        Self { files: files.into(), clock: SystemTime::now(), at: Instant::now() }
    }

    pub(super) fn assert_unchanged(&self) {
        let now = Self::read();
        assert_eq!(now.files, self.files, "a sandbox has changed the host");
        let clock = now.clock.duration_since(self.clock).map_or(-1.0, |time| time.as_secs_f64());
        let drift = clock - (now.at - self.at).as_secs_f64();
        assert!(drift.abs() < CLOCK, "a sandbox has set the host's clock by {drift} s");
    }
}
