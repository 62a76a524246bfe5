//! What takes how much room.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_types::ErrorCode;
use kiln_types::api::{GcRequest, SandboxUsage, StoreUsage, UsageParts};

use super::{gc, leftover, walk};
use crate::app::App;
use crate::problem::ApiError;

const ROWS_AT_ONCE: u32 = 500;

/// Counts everything in the data directory.
pub(crate) async fn usage(app: &Arc<App>) -> Result<StoreUsage, ApiError> {
    let store = app.images.usage().await?;
    let unpacked: u64 = gc::unpacked_of_all(app).await.iter().map(|(_, bytes)| bytes).sum();
    let (sandboxes, disks) = sandboxes(app).await?;
    let mut parts = UsageParts {
        images: store.images,
        build_cache: store.build_cache,
        unpacked,
        unreferenced: store.unreferenced,
        sandboxes: disks,
        logs: 0,
        database: 0,
        quarantine: store.quarantine,
        other: 0,
    };
    let data_dir = app.config.data_dir.clone();
    let counted = tokio::task::spawn_blocking(move || count(&data_dir));
    let counted = counted.await.map_err(|error| ApiError::of(ErrorCode::Internal, &error))?;
    parts.logs = counted.logs;
    parts.database = counted.database;
    let named = parts.images
        + parts.build_cache
        + parts.unpacked
        + parts.unreferenced
        + parts.logs
        + parts.database
        + parts.quarantine;
    // What was removed between the two counts is missing in the second.
    parts.other = counted.total.saturating_sub(named);
    Ok(StoreUsage {
        total: named + parts.other + parts.sandboxes,
        parts,
        images: store.of_images,
        snapshots: store.of_snapshots,
        sandboxes,
        reclaimable: reclaimable(app, &GcRequest::default()).await?,
        reclaimable_all: reclaimable(app, &GcRequest { all: true, ..GcRequest::default() }).await?,
    })
}

/// What `gc` would free.
async fn reclaimable(app: &Arc<App>, request: &GcRequest) -> Result<u64, ApiError> {
    let request = GcRequest { dry_run: true, ..*request };
    Ok(gc::gc(app, request).await?.bytes)
}

/// The disks of all sandboxes, and their sum with those of build steps.
async fn sandboxes(app: &Arc<App>) -> Result<(Vec<SandboxUsage>, u64), ApiError> {
    let metadata = app.images.metadata();
    let mut rows = Vec::new();
    let mut cursor = None;
    loop {
        let page = metadata.list_sandboxes(cursor.as_ref(), ROWS_AT_ONCE).await?;
        cursor = page.last().map(|row| row.id);
        let last = page.len() < ROWS_AT_ONCE as usize;
        rows.extend(page);
        if last {
            break;
        }
    }
    let uppers = Arc::clone(app.roots.uppers());
    let counted = tokio::task::spawn_blocking(move || {
        let ids = uppers.list()?;
        // One that is removed meanwhile takes nothing.
        let usage = |id: String| {
            let found = uppers.usage(&id).unwrap_or_default();
            (id, found)
        };
        Ok::<_, kiln_roots::RootsError>(ids.into_iter().map(usage).collect::<Vec<_>>())
    });
    let counted = match counted.await {
        Ok(counted) => counted.map_err(|error| ApiError::of(error.code(), &error))?,
        Err(error) => return Err(ApiError::of(ErrorCode::Internal, &error)),
    };
    let all = counted.iter().map(|(_, usage)| usage.bytes).sum();
    let of_row = |row: kiln_metadata::SandboxRecord| {
        let id = row.id.to_string();
        let found = counted.iter().find(|(upper, _)| *upper == id);
        let usage = found.map(|(_, usage)| *usage).unwrap_or_default();
        SandboxUsage { id, name: row.name, bytes: usage.bytes, inodes: usage.inodes }
    };
    Ok((rows.into_iter().map(of_row).collect(), all))
}

/// What the files besides those of the image store take.
struct Counted {
    /// Everything but what [`kiln_roots::UpperStore::usage`] counts.
    total: u64,
    logs: u64,
    database: u64,
}

fn count(data_dir: &Path) -> Counted {
    let uppers = data_dir.join("uppers");
    // What is on a disk is counted by who has the disks: here only what is around it.
    let disk = |path: &Path| {
        let below = path.strip_prefix(&uppers).ok();
        below.is_some_and(|below| {
            let parts: Vec<_> = below.iter().collect();
            let hidden =
                parts.first().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            match parts.as_slice() {
                [file] => !hidden && file.as_encoded_bytes().ends_with(b".ext4"),
                [_, name] => !hidden && *name == "u",
                _ => false,
            }
        })
    };
    let total = walk::bytes_without(data_dir, &disk);
    let database = leftover::entries(data_dir)
        .into_iter()
        .filter(|path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"kiln.sqlite"))
        })
        .map(|path| walk::bytes(&path))
        .sum();
    Counted { total, logs: walk::bytes(&data_dir.join("builds")), database }
}
