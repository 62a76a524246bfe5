//! What podman and its network leave on the host on purpose, and what goes when it was not there before.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::program;

const LOCKS: &str = "/dev/shm/libpod_lock";
const GROUP: &str = "libpod_parent";
/// Tells a later run what it was, in case this one is killed.
const FILE: &str = "host-before.json";

/// What the host has had of it before. Dropping it removes the rest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Leftovers {
    locks: bool,
    group: bool,
    rules: bool,
}

impl Leftovers {
    /// Looks at the host, and writes it down in a directory.
    pub(super) fn before(directory: &Path) -> Result<Self> {
        let rules = rules();
        let before = Self {
            locks: Path::new(LOCKS).exists(),
            group: groups().iter().any(|group| Path::new(group).exists()),
            rules: rules.is_some_and(|rules| rules.contains("NETAVARK")),
        };
        fs::write(directory.join(FILE), serde_json::to_vec(&before)?)?;
        Ok(before)
    }

    /// What a run that was killed had written down. Where it had not come to that it has left nothing.
    pub(super) fn left(directory: &Path) -> Self {
        let text = fs::read(directory.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or(Self { locks: true, group: true, rules: true })
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if !self.locks {
            let _ = fs::remove_file(LOCKS);
        }
        if !self.group {
            for group in groups() {
                let _ = program::run(
                    Command::new("find").args([&group, "-depth", "-type", "d", "-delete"]),
                );
            }
        }
        if !self.rules && rules().is_some_and(|rules| rules.contains("NETAVARK")) {
            let script = "iptables-save | grep -v NETAVARK | iptables-restore";
            let _ = program::run(Command::new("sh").args(["-c", script]));
        }
    }
}

/// The directories of podman's control group in all hierarchies.
fn groups() -> Vec<String> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let below = hierarchies.map(|entry| format!("{}/{GROUP}", entry.path().display()));
    below
        .chain([format!("/sys/fs/cgroup/{GROUP}")])
        .filter(|path| Path::new(path).is_dir())
        .collect()
}

fn rules() -> Option<String> {
    Some(program::run(&mut Command::new("iptables-save")).ok()?.stdout)
}
