//! `fsck`: what is damaged, what depends on it, and the way out.

use std::io::IsTerminal as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use kiln_client::Client;
use kiln_server::{FsckProgress, ServerError};
use kiln_types::api::{Affected, Finding, FsckReport, FsckRequest, WayOut};

use crate::args::Fsck;
use crate::output;

/// Exit code when damage was found that is still there.
const DAMAGED: u8 = 1;

/// Asks the daemon.
pub(super) async fn online(client: &Client, args: &Fsck, json: bool) -> Result<u8> {
    let report = client.fsck(&FsckRequest { repair: args.repair }).await?;
    show(&report, args.repair, json)
}

/// Looks itself, where no daemon runs.
pub(super) async fn offline(args: &Fsck, json: bool) -> Result<u8> {
    let directory = args.data_dir.as_deref().unwrap_or_else(|| "/var/lib/kiln".as_ref());
    let data_dir = std::path::absolute(directory)
        .with_context(|| format!("--data-dir {} is not usable", directory.display()))?;
    let request = FsckRequest { repair: args.repair };
    let bar = progress();
    let shown = bar.clone();
    let progress = Arc::new(move |done: FsckProgress| {
        shown.set_length(done.total);
        shown.set_position(done.bytes);
    });
    let report = kiln_server::fsck_offline(&data_dir, request, progress).await;
    bar.finish_and_clear();
    let report = report.map_err(|error| {
        let running = matches!(error, ServerError::Locked { .. });
        let error = anyhow::Error::from(error);
        if running { error.context("a daemon runs: ask it, without --data-dir") } else { error }
    })?;
    show(&report, args.repair, json)
}

/// How much was read, on a terminal.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {decimal_bytes} of {decimal_total_bytes}");
    ProgressBar::new(0).with_style(style.expect("the template is well-formed"))
}

fn show(report: &FsckReport, repair: bool, json: bool) -> Result<u8> {
    if json {
        output::json(report)?;
        return Ok(if report.clean { 0 } else { DAMAGED });
    }
    for finding in &report.findings {
        for line in describe(finding, repair) {
            output::line(&line)?;
        }
    }
    let checked = &report.checked;
    output::line(&format!(
        "{} images, {} blobs ({}), {} indexes, {} rows, {} files in {} s: {}",
        checked.images,
        checked.blobs,
        output::size(checked.bytes),
        checked.indexes,
        checked.rows,
        checked.files,
        output::seconds(report.duration_ms),
        summary(report, repair),
    ))?;
    Ok(if report.clean { 0 } else { DAMAGED })
}

fn summary(report: &FsckReport, repair: bool) -> String {
    let found = report.findings.len();
    let things = if found == 1 { "1 finding".to_owned() } else { format!("{found} findings") };
    let repaired = report
        .findings
        .iter()
        .filter(|finding| finding.repair.as_ref().is_some_and(|repair| repair.repaired))
        .count();
    match (found, repair) {
        (0, _) => "clean".to_owned(),
        (_, false) => things,
        (_, true) => {
            format!("{things}, {repaired} repaired, {} removed", output::size(report.bytes_removed))
        }
    }
}

/// A finding in lines.
fn describe(finding: &Finding, repair: bool) -> Vec<String> {
    let kind = serde_json::to_value(finding.kind).unwrap_or_default();
    let kind = kind.as_str().unwrap_or_default().replace('_', " ");
    let mut lines = vec![format!("{kind}: {}", finding.subject)];
    if let Some(path) = finding.path.as_ref().filter(|path| **path != finding.subject) {
        lines.push(format!("  file: {path}"));
    }
    lines.push(format!("  problem: {}", finding.problem));
    if !finding.affects.is_empty() {
        lines.push(format!("  affects: {}", affects(&finding.affects)));
    }
    match &finding.repair {
        Some(done) if done.repaired => lines.push(format!("  repaired: {}", done.detail)),
        Some(done) => lines.push(format!("  not repaired: {}", done.detail)),
        None if !repair => lines.push(format!("  way out: {}", way_out(finding.way_out))),
        None => {}
    }
    lines
}

fn affects(affected: &Affected) -> String {
    let mut parts = Vec::new();
    // A name says more than the digest of the same image.
    let images: Vec<String> = if affected.names.is_empty() {
        affected.images.iter().map(|image| image.chars().take(19).collect()).collect()
    } else {
        affected.names.clone()
    };
    for (what, which) in
        [("image", &images), ("snapshot", &affected.snapshots), ("sandbox", &affected.sandboxes)]
    {
        parts.extend(which.iter().map(|which| format!("{what} {which}")));
    }
    parts.join(", ")
}

fn way_out(way_out: WayOut) -> &'static str {
    match way_out {
        WayOut::Repair => "nothing is lost; `kiln fsck --repair` puts it right",
        WayOut::PullAgain => "`kiln fsck --repair` fetches it again from its registry",
        WayOut::BuildAgain => {
            "`kiln fsck --repair` puts it out of use; then build what needs it again"
        }
        WayOut::Lost => {
            "it cannot be made again; `kiln fsck --repair` puts it out of use, or restore a backup"
        }
    }
}
