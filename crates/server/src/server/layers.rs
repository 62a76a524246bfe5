//! How this daemon mounts layers, and what an earlier one has left of another way.

use std::collections::HashSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_roots::{DirectoryMounts, ErofsMounts, LayerMounts, RootsError};
use kiln_types::Digest;
use kiln_types::api::SandboxStatus;

use crate::app::App;
use crate::config::Layers;
use crate::error::ServerError;
use crate::problem::ApiError;

const PART: &str = "the mounts of layers";
const ROWS_AT_ONCE: u32 = 500;

/// The way that the configuration names, or the best that works.
pub(super) fn open(wanted: Layers, data_dir: &Path) -> Result<Arc<dyn LayerMounts>, ServerError> {
    let dir = data_dir.join("layers");
    let failed = ServerError::part(PART);
    if choose(wanted, || ErofsMounts::probe(data_dir)).map_err(ServerError::part(PART))? {
        Ok(Arc::new(ErofsMounts::beside(&dir).map_err(failed)?))
    } else {
        Ok(Arc::new(DirectoryMounts::open(&dir).map_err(failed)?))
    }
}

/// Whether it is EROFS.
fn choose(
    wanted: Layers,
    probe: impl FnOnce() -> Result<(), RootsError>,
) -> Result<bool, RefusedLayers> {
    match wanted {
        Layers::Directory => {
            tracing::info!(layers = "directory", "layers are mounted as the configuration says");
            Ok(false)
        }
        Layers::Erofs => {
            probe().map_err(RefusedLayers)?;
            tracing::info!(layers = "erofs", "layers are mounted as the configuration says");
            Ok(true)
        }
        Layers::Auto => match probe() {
            Ok(()) => {
                tracing::info!(layers = "erofs", "layers are mounted out of their own files");
                Ok(true)
            }
            Err(error) => {
                tracing::warn!(
                    layers = "directory",
                    error = &error as &dyn Error,
                    "this kernel does not mount layers out of their own files; each is laid out in a directory first"
                );
                Ok(false)
            }
        },
    }
}

/// The configuration names what does not work here.
#[derive(Debug, thiserror::Error)]
#[error(
    "the configuration key `layers` is `erofs`, but this host cannot mount layers so; set it to `auto` or `directory`"
)]
struct RefusedLayers(#[source] RootsError);

/// Removes what is kept of layers that are gone, and what only another way to mount them needs. What
/// cannot be removed stays: it takes up room, but stands in nobody's way.
pub(super) async fn sweep(app: &Arc<App>) {
    match try_sweep(app).await {
        Ok(0) => {}
        Ok(bytes) => tracing::info!(bytes, "removed laid-out layers that nothing needs"),
        Err(error) => {
            tracing::warn!(error = %error.problem, "laid-out layers that nothing needs stay");
        }
    }
}

async fn try_sweep(app: &Arc<App>) -> Result<u64, ApiError> {
    let known = app.images.index_paths().await?;
    let mounts = Arc::clone(app.roots.layer_mounts());
    let elsewhere = mounts.mode() == "directory" || !app.config.data_dir.join("layers").is_dir();
    let used = if elsewhere { Vec::new() } else { used(app).await? };
    let swept = tokio::task::spawn_blocking(move || mounts.sweep(&known, &used)).await;
    match swept {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(ApiError::of(error.code(), &error)),
        Err(error) => Err(ApiError::of(kiln_types::ErrorCode::Internal, &error)),
    }
}

/// The indexes of the layers that sandboxes are running on.
async fn used(app: &App) -> Result<Vec<PathBuf>, ApiError> {
    let metadata = app.images.metadata();
    let mut images: HashSet<Digest> = HashSet::new();
    let mut cursor = None;
    loop {
        let rows = metadata.list_sandboxes(cursor.as_ref(), ROWS_AT_ONCE).await?;
        let complete = rows.len() < ROWS_AT_ONCE as usize;
        cursor = rows.last().map(|row| row.id);
        // A row that says stopped is that of a sandbox which has been seen to have ended.
        let running = rows.iter().filter(|row| row.status != SandboxStatus::Stopped);
        images.extend(running.map(|row| row.image_digest));
        if complete {
            break;
        }
    }
    let mut used = Vec::new();
    for digest in images {
        if let Some(image) = metadata.get_image(&digest).await? {
            let layers = app.images.prove_layers(&image.layers).await?;
            used.extend(layers.into_iter().map(|layer| layer.index));
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> Result<(), RootsError> {
        let source = std::io::ErrorKind::Unsupported.into();
        Err(RootsError::Io { action: "mount in", path: "/data".into(), source })
    }

    #[test]
    fn what_works_is_taken_and_what_was_named_is_not_replaced() {
        assert!(choose(Layers::Auto, || Ok(())).unwrap());
        assert!(!choose(Layers::Auto, broken).unwrap());
        assert!(choose(Layers::Erofs, || Ok(())).unwrap());
        let refused = choose(Layers::Erofs, broken).unwrap_err();
        let text = crate::problem::chain(&refused);
        assert!(text.contains("`layers` is `erofs`") && text.contains("/data"), "{text}");
        let unasked = || unreachable!("nothing is tried for directories");
        assert!(!choose(Layers::Directory, unasked).unwrap());
    }
}
