//! Removal of what nothing needs: images, layers, results of steps, builds that are long over.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kiln_images::GcScope;
use kiln_metadata::MetadataStore;
use kiln_types::BuildId;
use kiln_types::ErrorCode;
use kiln_types::api::{BuildStatus, GcItem, GcKind, GcReport, GcRequest};

use super::leftover::entries;
use super::walk;
use crate::app::App;
use crate::config::Gc;
use crate::problem::{ApiError, chain};

const ROWS_AT_ONCE: u32 = 500;
/// The longest age that can be asked for, in hours: more than a century.
const MOST_HOURS: u32 = 1_000_000;
/// How young a log may be whose build has no row yet.
const NEW: std::time::Duration = std::time::Duration::from_mins(1);

/// Removes what nothing needs, or says what that is.
pub(crate) async fn gc(app: &Arc<App>, request: GcRequest) -> Result<GcReport, ApiError> {
    check(&request)?;
    let scope = scope(app.config.gc, &request);
    let builds = Builds::find(app, app.config.gc).await?;
    let mut items = Vec::new();
    if request.dry_run {
        let plan = app.images.gc_plan(scope).await?;
        let unpacked = unpacked(app, &plan.indexes).await;
        items.extend(plan.items);
        items.extend(unpacked);
        items.extend(builds.items(&app.config.data_dir));
    } else {
        let before = unpacked_of_all(app).await;
        let collected = app.images.gc(scope).await?;
        items.extend(collected.items);
        for index in collected.indexes {
            let bytes =
                before.iter().find(|(path, _)| *path == index).map_or(0, |(_, bytes)| *bytes);
            let mounts = Arc::clone(app.roots.layer_mounts());
            let path = index.clone();
            match tokio::task::spawn_blocking(move || mounts.forget(&path)).await {
                Ok(Ok(())) if bytes > 0 => {
                    items.push(item(GcKind::Unpacked, shown(app, &index), bytes));
                }
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = chain(&error), "what is kept of a removed layer stays");
                }
                Err(error) => return Err(ApiError::of(ErrorCode::Internal, &error)),
            }
        }
        items.extend(builds.remove(app).await?);
    }
    let bytes = items.iter().map(|item| item.bytes).sum();
    Ok(GcReport { dry_run: request.dry_run, items, bytes })
}

/// Refuses what can only be a slip.
fn check(request: &GcRequest) -> Result<(), ApiError> {
    match request.keep_hours {
        Some(hours) if hours > MOST_HOURS => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!("`keep_hours` is {hours}; it must be at most {MOST_HOURS}"),
        )
        .hint("to keep everything, do not collect garbage")),
        _ => Ok(()),
    }
}

/// How much the request wants gone.
fn scope(config: Gc, request: &GcRequest) -> GcScope {
    if request.all {
        return GcScope::All;
    }
    let hours = request.keep_hours.unwrap_or(config.keep_hours);
    GcScope::Older(SignedDuration::from_hours(hours.into()))
}

fn item(kind: GcKind, subject: String, bytes: u64) -> GcItem {
    GcItem { kind, subject, bytes }
}

fn shown(app: &App, path: &Path) -> String {
    path.strip_prefix(&app.config.data_dir).unwrap_or(path).display().to_string()
}

async fn unpacked(app: &Arc<App>, indexes: &[std::path::PathBuf]) -> Vec<GcItem> {
    let mounts = Arc::clone(app.roots.layer_mounts());
    let paths = indexes.to_vec();
    let sizes = tokio::task::spawn_blocking(move || {
        let bytes = |path: &std::path::PathBuf| mounts.bytes(path).unwrap_or_default();
        paths.iter().map(bytes).collect::<Vec<u64>>()
    });
    let sizes = sizes.await.unwrap_or_default();
    let all = indexes.iter().zip(sizes).filter(|(_, bytes)| *bytes > 0);
    all.map(|(path, bytes)| item(GcKind::Unpacked, shown(app, path), bytes)).collect()
}

/// What is kept unpacked of every layer; after a layer's removal nobody can say it any more.
pub(super) async fn unpacked_of_all(app: &Arc<App>) -> Vec<(std::path::PathBuf, u64)> {
    let mounts = Arc::clone(app.roots.layer_mounts());
    let dir = app.config.data_dir.join("indexes");
    let found = tokio::task::spawn_blocking(move || {
        entries(&dir)
            .into_iter()
            .map(|path| {
                let bytes = mounts.bytes(&path).unwrap_or_default();
                (path, bytes)
            })
            .filter(|(_, bytes)| *bytes > 0)
            .collect()
    });
    found.await.unwrap_or_default()
}

/// Builds that are long over, and logs without builds.
struct Builds {
    over: Vec<BuildId>,
    logs: Vec<String>,
}

impl Builds {
    async fn find(app: &Arc<App>, keep: Gc) -> Result<Self, ApiError> {
        let metadata: &Arc<dyn MetadataStore> = app.images.metadata();
        let oldest =
            Timestamp::now() - SignedDuration::from_hours(24 * i64::from(keep.keep_build_days));
        let (mut over, mut known) = (Vec::new(), std::collections::HashSet::new());
        let mut cursor = None;
        loop {
            let rows = metadata.list_builds(cursor.as_ref(), ROWS_AT_ONCE).await?;
            for row in &rows {
                let too_many = known.len() >= keep.keep_builds as usize;
                let too_old = row.finished_at.is_some_and(|time| time < oldest);
                if row.status != BuildStatus::Running && (too_many || too_old) {
                    over.push(row.id);
                }
                known.insert(row.id);
            }
            cursor = rows.last().map(|row| row.id);
            if rows.len() < ROWS_AT_ONCE as usize {
                break;
            }
        }
        let mut logs = Vec::new();
        for path in entries(&app.config.data_dir.join("builds")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let young = fs::symlink_metadata(&path)
                .and_then(|found| found.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < NEW));
            if name.parse::<BuildId>().is_ok_and(|id| !known.contains(&id)) && !young {
                logs.push(name);
            }
        }
        Ok(Self { over, logs })
    }

    fn items(&self, data_dir: &Path) -> Vec<GcItem> {
        let dir = data_dir.join("builds");
        let bytes = |name: &str| walk::bytes(&dir.join(name));
        let over = self.over.iter().map(ToString::to_string);
        let over = over.map(|id| item(GcKind::Build, id.clone(), bytes(&id)));
        let logs = self.logs.iter().map(|name| item(GcKind::Log, name.clone(), bytes(name)));
        over.chain(logs).collect()
    }

    async fn remove(self, app: &Arc<App>) -> Result<Vec<GcItem>, ApiError> {
        let mut items = self.items(&app.config.data_dir);
        for id in &self.over {
            app.images.metadata().remove_build(id).await?;
            kiln_failpoint::pass("gc.build-unrecorded");
        }
        let dir = app.config.data_dir.join("builds");
        for item in &mut items {
            match fs::remove_dir_all(dir.join(&item.subject)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(build = item.subject, %error, "a log was not removed");
                    item.bytes = 0;
                }
                _ => {}
            }
        }
        Ok(items)
    }
}
