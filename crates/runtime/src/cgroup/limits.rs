//! Writing limits.

use std::path::Path;

use super::control::{read_number, write, write_if_there};
use super::{CgroupError, Group};
use crate::runtime::Limits;

/// The time in which CPU time is accounted, in microseconds; the kernel's default.
const PERIOD: u64 = 100_000;

/// What a sandbox may open: null, zero, full, random, urandom, tty, ptmx and the terminals of a devpts.
const DEVICES: [&str; 8] = [
    "c 1:3 rw",
    "c 1:5 rw",
    "c 1:7 rw",
    "c 1:8 rw",
    "c 1:9 rw",
    "c 5:0 rw",
    "c 5:2 rw",
    "c 136:* rw",
];
/// What overlayfs marks a deleted file with. Kernels before 5.8 count it as a device.
const WHITEOUT: &str = "c 0:0 m";

impl Group {
    /// Sets the limits. They may be set again, for a sandbox that runs; lowering the memory below what
    /// is in use fails when the kernel cannot free enough.
    pub fn set_limits(&self, limits: &Limits) -> Result<(), CgroupError> {
        let fields = [
            ("vcpu", u64::from(limits.vcpu)),
            ("memory", limits.memory),
            ("pids", u64::from(limits.pids)),
        ];
        for (field, value) in fields {
            if value == 0 {
                return Err(CgroupError::Limit { field });
            }
        }
        self.limit_memory(limits.memory)?;
        self.limit("pids", "pids.max", "pids.max", &limits.pids.to_string())?;
        let quota = u64::from(limits.vcpu) * PERIOD;
        match self.v1_of("cpu") {
            Some(path) => {
                write(&path.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
                write(&path.join("cpu.cfs_quota_us"), &quota.to_string())
            }
            None => self.limit("cpu", "", "cpu.max", &format!("{quota} {PERIOD}")),
        }
    }

    fn limit_memory(&self, bytes: u64) -> Result<(), CgroupError> {
        let value = bytes.to_string();
        let Some(path) = self.v1_of("memory") else {
            self.limit("memory", "", "memory.max", &value)?;
            if let Some(path) = &self.v2 {
                write_if_there(&path.join("memory.swap.max"), "0")?;
            }
            return Ok(());
        };
        let (memory, with_swap) =
            (path.join("memory.limit_in_bytes"), path.join("memory.memsw.limit_in_bytes"));
        if !with_swap.exists() {
            // Swap is not accounted on this host; at least none is used by choice.
            write_if_there(&path.join("memory.swappiness"), "0")?;
            return write(&memory, &value);
        }
        // Memory with swap may never be less than memory, at no moment.
        let both = if bytes > read_number(&with_swap)? {
            [&with_swap, &memory]
        } else {
            [&memory, &with_swap]
        };
        both.into_iter().try_for_each(|file| write(file, &value))
    }

    fn limit(
        &self,
        controller: &'static str,
        v1: &str,
        v2: &str,
        value: &str,
    ) -> Result<(), CgroupError> {
        match (self.v1_of(controller), &self.v2) {
            (Some(path), _) => write(&path.join(v1), value),
            (None, Some(path)) => write(&path.join(v2), value),
            (None, None) => Err(CgroupError::Controller { controller, root: self.path() }),
        }
    }

    /// Lets the group open few devices, where there is a version 1 controller for that. Elsewhere the
    /// sandbox's mounts, on which no device can be opened, have to do.
    pub(super) fn restrict_devices(&self) -> Result<(), CgroupError> {
        let Some(path) = self.v1_of("devices") else { return Ok(()) };
        write(&path.join("devices.deny"), "a")?;
        for rule in DEVICES.iter().chain([&WHITEOUT]) {
            allow(&path.join("devices.allow"), rule)?;
        }
        Ok(())
    }
}

/// A host that is itself restricted cannot allow more than it has, and need not.
fn allow(file: &Path, rule: &str) -> Result<(), CgroupError> {
    match write(file, rule) {
        Err(CgroupError::File { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            tracing::debug!(rule, "the host's own device rules forbid this one");
            Ok(())
        }
        other => other,
    }
}
