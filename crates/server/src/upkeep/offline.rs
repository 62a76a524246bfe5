//! `fsck` without a daemon: for a database that does not open, and a daemon that does not start.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_images::{ImageStore, Leftover, OnProgress};
use kiln_metadata::{MetadataError, MetadataStore, SqliteStore};
use kiln_types::api::{Finding, FindingKind, FsckReport, FsckRequest, WayOut};

use super::fsck::finish;
use super::leftover::{self, Busy, Sandboxes, finding};
use super::repair::Tools;
use crate::error::ServerError;
use crate::lock::DataLock;
use crate::problem::chain;

/// How long the database may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);

/// Looks at all that is stored in `data_dir`, which no daemon may use meanwhile.
pub async fn fsck_offline(
    data_dir: &Path,
    request: FsckRequest,
    progress: OnProgress,
) -> Result<FsckReport, ServerError> {
    let start = Instant::now();
    fs::metadata(data_dir).map_err(|source| ServerError::DataDir {
        action: "find the data directory",
        path: data_dir.to_owned(),
        source,
    })?;
    let _lock = DataLock::take(data_dir)?;
    let mut report = FsckReport::default();
    // Before anything is opened: whoever opens the store clears these away.
    let left = kiln_images::leftovers(data_dir).map_err(|source| ServerError::DataDir {
        action: "list what is left in",
        path: data_dir.to_owned(),
        source,
    })?;
    for Leftover { path, bytes } in left {
        let shown = path.strip_prefix(data_dir).unwrap_or(&path).display().to_string();
        let problem = format!("a writer left it behind, with {bytes} bytes");
        let found = finding(FindingKind::FileTemporary, shown.clone(), &problem, WayOut::Repair);
        report.findings.push(Finding { path: Some(shown), ..found });
    }
    let database = data_dir.join("kiln.sqlite");
    if is_lost(&database) {
        let problem =
            "there is no database: nothing says what the files are; restore it from a backup";
        report.findings.push(database_damaged(problem));
        return Ok(finish(report, start));
    }
    let metadata = match SqliteStore::open_existing(&database).await {
        Ok(metadata) => metadata,
        Err(error @ MetadataError::NewerSchema { .. }) => return Err(error.into()),
        Err(error) => {
            report.findings.push(database_damaged(&chain(&error)));
            return Ok(finish(report, start));
        }
    };
    let result = examine(data_dir, &metadata, request, progress, &mut report).await;
    // A damaged file may have cost a connection its thread, which then never says that it ended.
    if tokio::time::timeout(CLOSE_TIMEOUT, metadata.close()).await.is_err() {
        tracing::warn!("the database did not close in time");
    }
    result?;
    Ok(finish(report, start))
}

async fn examine(
    data_dir: &Path,
    metadata: &SqliteStore,
    request: FsckRequest,
    progress: OnProgress,
    report: &mut FsckReport,
) -> Result<(), ServerError> {
    let metadata: Arc<dyn MetadataStore> = Arc::new(metadata.clone());
    let images = ImageStore::open(data_dir, Arc::clone(&metadata))
        .map_err(ServerError::part("the image store"))?;
    let examined = images.fsck(progress).await.map_err(ServerError::part("the image store"))?;
    let readable = examined.checked.images > 0 || examined.findings.is_empty();
    report.checked = examined.checked;
    report.findings.extend(examined.findings);
    if readable {
        let busy = Busy::default();
        let listed: Vec<String> = leftover::entries(&data_dir.join("uppers"))
            .iter()
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .filter(|name| !name.starts_with('.'))
            .map(|name| name.strip_suffix(".ext4").map_or_else(|| name.clone(), str::to_owned))
            .collect();
        let sandboxes = Sandboxes::load(metadata.as_ref()).await?;
        report.findings.extend(leftover::uppers(&listed, &sandboxes, &busy));
        report.findings.extend(leftover::logs(data_dir, &metadata, &busy).await?);
    }
    if request.repair {
        let data_dir = data_dir.to_owned();
        let tools = Tools { images, data_dir, registry: None, uppers: None, mounts: None };
        tools.repair(report).await;
    }
    Ok(())
}

fn database_damaged(problem: &str) -> Finding {
    let found = finding(FindingKind::DatabaseDamaged, "database".to_owned(), problem, WayOut::Lost);
    Finding { path: Some("kiln.sqlite".to_owned()), ..found }
}

/// Opens the database of a data directory; a new one only where nothing is stored yet. An empty one beside
/// what it spoke of would make waste of it all.
pub(crate) async fn open_database(data_dir: &Path) -> Result<SqliteStore, ServerError> {
    let database = data_dir.join("kiln.sqlite");
    let shards = leftover::entries(&data_dir.join("blobs/sha256"));
    if !shards.iter().any(|shard| !leftover::entries(shard).is_empty()) {
        return Ok(SqliteStore::open(database).await?);
    }
    if is_lost(&database) {
        return Err(ServerError::DatabaseLost { path: database });
    }
    match SqliteStore::open_existing(&database).await {
        Err(MetadataError::Empty { .. }) => Err(ServerError::DatabaseLost { path: database }),
        opened => Ok(opened?),
    }
}

fn is_lost(database: &Path) -> bool {
    // SQLite itself takes no notice of a write-ahead log beside an empty file, and removes it.
    fs::metadata(database).map_or(0, |found| found.len()) == 0
}
