//! What this host offers: everything that sandboxes need, found out by trying it.

mod drivers;
mod layers;
mod network;
mod program;

use std::fs;
use std::io;
use std::path::Path;

use kiln_types::api::{Check, CheckStatus, DoctorReport};

use crate::config::{Config, DEBIAN_CA_BUNDLE};

/// Below this a first build of any use runs out of space.
const LOW_SPACE: u64 = 4 << 30;

/// Examines the host for a daemon with this configuration. Leaves nothing behind.
pub(crate) fn report(config: &Config) -> DoctorReport {
    let (data_dir, layers) = (config.data_dir.as_path(), config.layers);
    // Before the first start there is only some directory above it, on the same file system.
    let existing = data_dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let mut checks = kiln_runtime::probe::probe(existing);
    checks.push(layers::mounts(existing, layers));
    checks.extend([network::forwarding(), network::firewall(), network::addresses()]);
    checks.extend([ca_bundle(), bootstrap(), disks(existing), data_directory(data_dir, existing)]);
    checks.extend(drivers::checks(config));
    let usable = checks.iter().all(|check| check.status != CheckStatus::Missing);
    DoctorReport { usable, checks }
}

fn ok(name: &str, detail: impl Into<String>) -> Check {
    Check { name: name.to_owned(), status: CheckStatus::Ok, detail: detail.into(), hint: None }
}

fn missing(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Check {
    let hint = Some(hint.into());
    Check { name: name.to_owned(), status: CheckStatus::Missing, detail: detail.into(), hint }
}

fn degraded(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Check {
    Check { status: CheckStatus::Degraded, ..missing(name, detail, hint) }
}

fn ca_bundle() -> Check {
    const NAME: &str = "certificates";
    if Path::new(DEBIAN_CA_BUNDLE).is_file() {
        ok(NAME, format!("sandboxes are shown {DEBIAN_CA_BUNDLE}"))
    } else {
        degraded(
            NAME,
            format!(
                "there is no {DEBIAN_CA_BUNDLE}; programs in sandboxes see only the image's own certificates"
            ),
            "install the package ca-certificates",
        )
    }
}

fn bootstrap() -> Check {
    const NAME: &str = "mmdebstrap";
    match program::find(NAME) {
        Some(path) => ok(NAME, path.display().to_string()),
        None => degraded(
            NAME,
            "not installed; base images of the catalog then come from a registry only",
            "install the package mmdebstrap",
        ),
    }
}

/// By making one, in the file system that will have them.
fn disks(existing: &Path) -> Check {
    const NAME: &str = "sandbox disks";
    match kiln_roots::ImageUppers::probe(existing) {
        Ok(()) => ok(NAME, "ext4 images, bounded by their size"),
        Err(error) => degraded(
            NAME,
            format!(
                "directories, which nothing bounds, since images do not work: {}",
                crate::problem::chain(&error)
            ),
            "as root, with the package e2fsprogs, loop devices (/dev/loop-control) and a kernel with ext4, disks are images",
        ),
    }
}

fn data_directory(data_dir: &Path, existing: &Path) -> Check {
    const NAME: &str = "data directory";
    let shown = data_dir.display();
    match rustix::fs::statvfs(existing).map_err(io::Error::from) {
        Err(error) => missing(NAME, format!("{shown}: {error}"), "choose another `data_dir`"),
        Ok(info) => {
            let free = info.f_bavail * info.f_frsize;
            let detail = format!("{shown}: {} MiB free", free >> 20);
            if free < LOW_SPACE {
                degraded(
                    NAME,
                    detail,
                    "images and builds need space: free some, or choose another `data_dir`",
                )
            } else {
                ok(NAME, detail)
            }
        }
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_ok_has_a_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("not/made/yet");
        let report = report(&Config { data_dir, ..Config::default() });
        assert!(report.checks.len() > 4);
        let names: std::collections::HashSet<_> =
            report.checks.iter().map(|check| &check.name).collect();
        assert_eq!(names.len(), report.checks.len(), "one thing is looked at twice");
        for check in &report.checks {
            assert!(check.status == CheckStatus::Ok || check.hint.is_some(), "{check:?}");
            assert!(!check.detail.is_empty(), "{check:?}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
