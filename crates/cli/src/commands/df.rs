//! `df`: what takes how much room.

use anyhow::Result;
use kiln_client::Client;
use kiln_types::api::{ImageUsage, SandboxUsage, SnapshotUsage, StoreUsage};

use crate::output::{self, size};

pub(super) async fn df(client: &Client, json: bool) -> Result<()> {
    let usage = client.usage().await?;
    if json {
        output::json(&usage)?;
        return Ok(());
    }
    parts(&usage)?;
    images(&usage.images)?;
    snapshots(&usage.snapshots)?;
    sandboxes(&usage.sandboxes)?;
    output::line("")?;
    output::line(&format!(
        "`kiln gc` would free {}, `kiln gc --all` {}",
        size(usage.reclaimable),
        size(usage.reclaimable_all)
    ))?;
    Ok(())
}

fn parts(usage: &StoreUsage) -> Result<()> {
    let parts = &usage.parts;
    let all = [
        ("images", parts.images),
        ("build cache", parts.build_cache),
        ("unpacked layers", parts.unpacked),
        ("unreferenced files", parts.unreferenced),
        ("sandboxes", parts.sandboxes),
        ("build logs", parts.logs),
        ("database", parts.database),
        ("quarantine", parts.quarantine),
        ("other", parts.other),
    ];
    // What there always is, and of the rest what there is.
    let shown = all.into_iter().filter(|(what, bytes)| {
        *bytes > 0 || matches!(*what, "images" | "build cache" | "sandboxes")
    });
    let mut rows: Vec<_> = shown.map(|(what, bytes)| [what.to_owned(), size(bytes)]).collect();
    rows.push(["total".to_owned(), size(usage.total)]);
    output::table(["WHAT", "BYTES"], &rows)?;
    Ok(())
}

fn images(images: &[ImageUsage]) -> Result<()> {
    if images.is_empty() {
        return Ok(());
    }
    let row = |image: &ImageUsage| {
        let name = match image.names.as_slice() {
            [] => "<none>".to_owned(),
            [name] => name.clone(),
            [name, rest @ ..] => format!("{name} (+{})", rest.len()),
        };
        let digest = image.digest.trim_start_matches("sha256:").chars().take(12).collect();
        [name, digest, size(image.unique), size(image.shared), size(image.total)]
    };
    let rows: Vec<_> = images.iter().map(row).collect();
    output::line("")?;
    output::table(["IMAGE", "DIGEST", "OWN", "SHARED", "TOTAL"], &rows)?;
    Ok(())
}

fn snapshots(snapshots: &[SnapshotUsage]) -> Result<()> {
    if snapshots.is_empty() {
        return Ok(());
    }
    let row = |snapshot: &SnapshotUsage| {
        let shared = size(snapshot.total.saturating_sub(snapshot.unique));
        [snapshot.name.clone(), size(snapshot.unique), shared, size(snapshot.total)]
    };
    let rows: Vec<_> = snapshots.iter().map(row).collect();
    output::line("")?;
    output::table(["SNAPSHOT", "OWN", "SHARED", "TOTAL"], &rows)?;
    Ok(())
}

fn sandboxes(sandboxes: &[SandboxUsage]) -> Result<()> {
    if sandboxes.is_empty() {
        return Ok(());
    }
    let row = |sandbox: &SandboxUsage| {
        let name = sandbox.name.clone().unwrap_or_default();
        [sandbox.id.clone(), name, size(sandbox.bytes), sandbox.inodes.to_string()]
    };
    let rows: Vec<_> = sandboxes.iter().map(row).collect();
    output::line("")?;
    output::table(["SANDBOX", "NAME", "DISK", "INODES"], &rows)?;
    Ok(())
}
