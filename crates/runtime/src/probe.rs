//! What this host offers to the native driver, found out by trying it.
//!
//! Each probe does for a moment what the driver does, on the very file system that the daemon's data is
//! on, and leaves nothing behind. None may hold the others up: whatever does not answer in time is
//! reported as such. That a device exists is told, but nothing is concluded from it.

mod kernel;

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use kiln_types::api::{Check, CheckStatus};

/// How long all probes together may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a probe found: a detail, or what is missing.
type Finding = Result<String, Lack>;

/// What is missing, and what can be done about it.
#[derive(Debug)]
struct Lack {
    status: CheckStatus,
    detail: String,
    hint: &'static str,
}

impl Lack {
    /// Without it no sandbox can run.
    fn fatal(error: &dyn std::error::Error, hint: &'static str) -> Self {
        Self { status: CheckStatus::Missing, detail: error.to_string(), hint }
    }
}

type Probe = (&'static str, fn(&Path) -> Finding);

/// In the order in which they are reported.
const PROBES: [Probe; 8] = [
    ("privileges", kernel::privileges),
    ("user namespaces", kernel::user_namespaces),
    ("overlayfs", kernel::overlayfs),
    ("id-mapped mounts", kernel::idmapped_mounts),
    ("control groups", kernel::control_groups),
    ("nftables", kernel::nftables),
    ("seccomp", kernel::seccomp),
    ("devices", kernel::devices),
];

/// Examines this host for a daemon whose data is in `dir`, an existing directory. Blocks for at most
/// five seconds.
pub fn probe(dir: &Path) -> Vec<Check> {
    let (tell, told) = channel();
    for (index, (_, look)) in PROBES.iter().enumerate() {
        let (tell, dir) = (tell.clone(), dir.to_owned());
        // Not waited for: a probe that hangs in the kernel must not hang the report.
        std::thread::spawn(move || {
            let finding = look(&dir);
            // The report may have been made without this one.
            drop(tell.send((index, finding)));
        });
    }
    drop(tell);
    let end = Instant::now() + DEADLINE;
    let mut checks: Vec<Check> = PROBES.iter().map(|(name, _)| unanswered(name)).collect();
    loop {
        match told.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((index, finding)) => checks[index] = check(PROBES[index].0, finding),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return checks,
        }
    }
}

fn check(name: &str, finding: Finding) -> Check {
    let name = name.to_owned();
    match finding {
        Ok(detail) => Check { name, status: CheckStatus::Ok, detail, hint: None },
        Err(Lack { status, detail, hint }) => {
            Check { name, status, detail, hint: Some(hint.to_owned()) }
        }
    }
}

fn unanswered(name: &str) -> Check {
    Check {
        name: name.to_owned(),
        status: CheckStatus::Missing,
        detail: format!("the kernel gave no answer within {DEADLINE:?}"),
        hint: Some("look for errors in the kernel's log (`dmesg`)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_answers() {
        let dir = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let checks = probe(dir.path());
        assert!(start.elapsed() < DEADLINE);
        assert_eq!(checks.len(), PROBES.len());
        let privileged = rustix::process::geteuid().is_root();
        for check in checks {
            assert!(!check.detail.is_empty(), "{check:?}");
            assert_eq!(check.hint.is_none(), check.status == CheckStatus::Ok, "{check:?}");
            assert!(!privileged || check.status != CheckStatus::Missing, "{check:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something is left");
    }
}
