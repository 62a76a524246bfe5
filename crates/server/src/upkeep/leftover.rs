//! Disks and logs that belong to nobody, and sandboxes without their disks.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_metadata::{MetadataError, MetadataStore};
use kiln_types::api::{Affected, Finding, FindingKind, SandboxStatus, WayOut};
use kiln_types::{BuildId, SandboxId};

const ROWS_AT_ONCE: u32 = 500;
/// How young a log may be whose build has no row yet: the row follows at once.
const NEW: Duration = Duration::from_mins(1);

/// What of the disks and logs is used though no row says so.
#[derive(Clone, Debug, Default)]
pub(super) struct Busy {
    /// Sandboxes that are being made.
    pub(super) sandboxes: HashSet<String>,
    /// Whether builds run, which have disks for their steps.
    pub(super) builds: bool,
    /// Whether there is a daemon, so that logs come to be.
    pub(super) daemon: bool,
}

/// The ids of all sandboxes, with the ones that have to have a disk.
pub(super) struct Sandboxes {
    pub(super) all: HashSet<String>,
    pub(super) with_disk: Vec<SandboxId>,
}

impl Sandboxes {
    pub(super) async fn load(metadata: &dyn MetadataStore) -> Result<Self, MetadataError> {
        let mut found = Self { all: HashSet::new(), with_disk: Vec::new() };
        let mut cursor = None;
        loop {
            let rows = metadata.list_sandboxes(cursor.as_ref(), ROWS_AT_ONCE).await?;
            cursor = rows.last().map(|row| row.id);
            let last = rows.len() < ROWS_AT_ONCE as usize;
            for row in rows {
                found.all.insert(row.id.to_string());
                if row.status != SandboxStatus::Removing {
                    found.with_disk.push(row.id);
                }
            }
            if last {
                return Ok(found);
            }
        }
    }
}

/// Disks without rows and rows without disks. `listed` has the ids of the disks.
pub(super) fn uppers(listed: &[String], sandboxes: &Sandboxes, busy: &Busy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let there: HashSet<&str> = listed.iter().map(String::as_str).collect();
    for id in &sandboxes.with_disk {
        let id = id.to_string();
        if !there.contains(id.as_str()) {
            let affects = Affected { sandboxes: vec![id.clone()], ..Affected::default() };
            let problem = "the sandbox has no disk: all that it has changed is gone; remove it";
            findings.push(Finding {
                affects,
                ..finding(FindingKind::UpperMissing, id, problem, WayOut::Lost)
            });
        }
    }
    for id in listed {
        let used = sandboxes.all.contains(id)
            || busy.sandboxes.contains(id)
            || (busy.builds && id.starts_with("build-"));
        if !used {
            let problem = "no sandbox has this disk";
            findings.push(Finding {
                path: Some(format!("uppers/{id}")),
                ..finding(FindingKind::UpperUnreferenced, id.clone(), problem, WayOut::Repair)
            });
        }
    }
    findings
}

/// Logs without builds, and what else lies among them.
pub(super) async fn logs(
    data_dir: &Path,
    metadata: &Arc<dyn MetadataStore>,
    busy: &Busy,
) -> Result<Vec<Finding>, MetadataError> {
    let dir = data_dir.join("builds");
    let mut findings = Vec::new();
    for path in entries(&dir) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shown = Some(format!("builds/{name}"));
        let Ok(id) = name.parse::<BuildId>() else {
            let problem = "Kiln makes no files of this name";
            let found = finding(
                FindingKind::FileForeign,
                format!("builds/{name}"),
                problem,
                WayOut::Repair,
            );
            findings.push(Finding { path: shown, ..found });
            continue;
        };
        let young = fs::symlink_metadata(&path)
            .and_then(|found| found.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < NEW));
        if metadata.get_build(&id).await?.is_none() && !(busy.daemon && young) {
            let found = finding(
                FindingKind::LogUnreferenced,
                name,
                "no build has this log",
                WayOut::Repair,
            );
            findings.push(Finding { path: shown, ..found });
        }
    }
    Ok(findings)
}

/// What is in a directory, sorted; nothing if it cannot be read.
pub(super) fn entries(dir: &Path) -> Vec<PathBuf> {
    let read = |entries: fs::ReadDir| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    };
    let mut paths = fs::read_dir(dir).and_then(read).unwrap_or_default();
    paths.sort();
    paths
}

pub(super) fn finding(
    kind: FindingKind,
    subject: String,
    problem: &str,
    way_out: WayOut,
) -> Finding {
    Finding {
        kind,
        subject,
        path: None,
        problem: problem.to_owned(),
        affects: Affected::default(),
        way_out,
        repair: None,
    }
}
