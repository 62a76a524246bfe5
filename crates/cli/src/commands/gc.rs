//! `gc`: what nothing needs goes.

use anyhow::Result;
use kiln_client::Client;
use kiln_types::api::{GcItem, GcKind, GcRequest};

use crate::args::Gc;
use crate::output;

pub(super) async fn gc(client: &Client, args: &Gc, json: bool) -> Result<()> {
    let request = GcRequest {
        dry_run: args.dry_run,
        all: args.all,
        keep_hours: args.keep.map(|keep| keep.0),
    };
    let report = client.gc(&request).await?;
    if json {
        output::json(&report)?;
        return Ok(());
    }
    let row = |item: &GcItem| {
        // A step has no bytes of its own: those are its layer's.
        let bytes = if item.bytes == 0 { "-".to_owned() } else { output::size(item.bytes) };
        [kind(item.kind).to_owned(), short(&item.subject), bytes]
    };
    if !report.items.is_empty() {
        let rows: Vec<_> = report.items.iter().map(row).collect();
        output::table(["KIND", "WHAT", "BYTES"], &rows)?;
    }
    let (count, bytes) = (report.items.len(), output::size(report.bytes));
    output::line(&match (count, report.dry_run) {
        (0, _) => "nothing to remove".to_owned(),
        (1, true) => format!("1 thing would be removed, {bytes} ({} bytes) freed", report.bytes),
        (_, true) => {
            format!("{count} things would be removed, {bytes} ({} bytes) freed", report.bytes)
        }
        (1, false) => format!("removed 1 thing, {bytes} ({} bytes) freed", report.bytes),
        (_, false) => format!("removed {count} things, {bytes} ({} bytes) freed", report.bytes),
    })?;
    Ok(())
}

fn kind(kind: GcKind) -> &'static str {
    match kind {
        GcKind::Image => "image",
        GcKind::Step => "step",
        GcKind::Layer => "layer",
        GcKind::Document => "document",
        GcKind::Index => "index",
        GcKind::Unpacked => "unpacked layer",
        GcKind::Leftover => "leftover",
        GcKind::Build => "build",
        GcKind::Log => "log",
        GcKind::Quarantined => "quarantined",
    }
}

/// A digest as people read it; anything else as it is.
fn short(subject: &str) -> String {
    match subject.strip_prefix("sha256:") {
        Some(hex) => hex.chars().take(12).collect(),
        None => subject.to_owned(),
    }
}
