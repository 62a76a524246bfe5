//! `fsck` beside a daemon that runs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use kiln_types::api::{Affected, Finding, FindingKind, FsckReport, FsckRequest, WayOut};
use kiln_types::{Digest, ErrorCode};

use super::leftover::{self, Busy, Sandboxes, finding};
use super::repair::{Tools, sources};
use crate::app::App;
use crate::problem::ApiError;

/// Looks at everything, and repairs what can be repaired if it is asked to.
pub(crate) async fn fsck(app: &Arc<App>, request: FsckRequest) -> Result<FsckReport, ApiError> {
    let start = Instant::now();
    let progress = Arc::new(|_| {});
    let mut examined = app.images.fsck(progress).await?;
    if examined.checked.images > 0 || examined.findings.is_empty() {
        let unpacked = unpacked(app, &examined.findings).await?;
        examined.findings.extend(unpacked);
        examined.findings.extend(disks_and_logs(app).await?);
    }
    let mut report = FsckReport {
        checked: examined.checked,
        findings: examined.findings,
        ..FsckReport::default()
    };
    if request.repair {
        let tools = Tools {
            images: Arc::clone(&app.images),
            data_dir: app.config.data_dir.clone(),
            registry: Some(app.registry.clone()),
            uppers: Some(Arc::clone(app.roots.uppers())),
            mounts: Some(Arc::clone(app.roots.layer_mounts())),
        };
        tools.repair(&mut report).await;
    }
    Ok(finish(report, start))
}

/// Ends a report.
pub(super) fn finish(mut report: FsckReport, start: Instant) -> FsckReport {
    report.clean = report
        .findings
        .iter()
        .all(|finding| finding.repair.as_ref().is_some_and(|repair| repair.repaired));
    report.duration_ms = start.elapsed().as_millis() as u64;
    report
}

/// Holds what is kept unpacked of layers against their files.
async fn unpacked(app: &Arc<App>, found: &[Finding]) -> Result<Vec<Finding>, ApiError> {
    if app.roots.layer_mounts().mode() == "erofs" {
        return Ok(Vec::new());
    }
    let mut findings: Vec<Finding> = Vec::new();
    let mut seen = HashSet::new();
    let mut cursor: Option<Digest> = None;
    loop {
        let images = app.images.metadata().list_images(cursor.as_ref(), 100).await?;
        let Some(last) = images.last() else { return Ok(findings) };
        cursor = Some(last.digest);
        for image in images {
            let digest = image.digest.to_string();
            // Of what is damaged itself nothing can be said.
            if found.iter().any(|finding| finding.affects.images.contains(&digest)) {
                continue;
            }
            let _hold = app.images.hold(&image.layers).await;
            for layer in sources(&app.images, &digest).await {
                if !seen.insert(layer.index.clone()) {
                    continue;
                }
                let mounts = Arc::clone(app.roots.layer_mounts());
                let index = layer.index.clone();
                let verified = tokio::task::spawn_blocking(move || mounts.verify(&layer)).await;
                let verified =
                    verified.map_err(|error| ApiError::of(ErrorCode::Internal, &error))?;
                let damage = verified.map_err(|error| ApiError::of(error.code(), &error))?;
                if let Some(first) = damage.first() {
                    let path = index.strip_prefix(&app.config.data_dir).unwrap_or(&index);
                    let path = path.display().to_string();
                    let problem = format!(
                        "{} entries, the first {}: {}",
                        damage.len(),
                        first.entry,
                        first.problem
                    );
                    let kind = FindingKind::UnpackedDamaged;
                    let found = finding(kind, path.clone(), &problem, WayOut::Repair);
                    let affects = Affected {
                        images: vec![digest.clone()],
                        sandboxes: app.sandboxes.running_on(&image.digest).await?,
                        ..Affected::default()
                    };
                    findings.push(Finding { path: Some(path), affects, ..found });
                }
            }
        }
    }
}

async fn disks_and_logs(app: &Arc<App>) -> Result<Vec<Finding>, ApiError> {
    let metadata = app.images.metadata();
    // Disks first: one that is made after they were listed is not missed, and a sandbox whose disk is
    // not listed is looked at once more.
    let listed = uppers(app).await?;
    let busy = Busy {
        sandboxes: app.sandboxes.being_made(),
        builds: !metadata.list_running_builds().await?.is_empty(),
        daemon: true,
    };
    let mut sandboxes = Sandboxes::load(metadata.as_ref()).await?;
    let again = uppers(app).await?;
    // Both lists: what came or went in between is no damage.
    let still: Vec<String> = listed.iter().filter(|id| again.contains(id)).cloned().collect();
    let still_there = Sandboxes::load(metadata.as_ref()).await?;
    sandboxes.with_disk.retain(|id| {
        let text = id.to_string();
        !again.contains(&text) && !listed.contains(&text) && still_there.all.contains(&text)
    });
    sandboxes.all.extend(still_there.all);
    let mut findings = leftover::uppers(&still, &sandboxes, &busy);
    findings.extend(leftover::logs(&app.config.data_dir, metadata, &busy).await?);
    Ok(findings)
}

async fn uppers(app: &Arc<App>) -> Result<Vec<String>, ApiError> {
    let uppers = Arc::clone(app.roots.uppers());
    match tokio::task::spawn_blocking(move || uppers.list()).await {
        Ok(listed) => listed.map_err(|error| ApiError::of(error.code(), &error)),
        Err(error) => Err(ApiError::of(ErrorCode::Internal, &error)),
    }
}
