//! A base from a root file system of the host: a directory, or a tarball (plain, gzip, zstd).

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_images::{ImageStore, NewImage};
use kiln_layer::UpperOptions;
use kiln_metadata::ImageRecord;
use kiln_types::DiffId;

use super::{BaseError, Say, pin, pinned};
use crate::snapshot::{SealedLayer, seal_directory};

/// Imports what is at `path`. What decides is its content: a tarball that has not changed at all since
/// it was last imported (by inode, size and times) is not read again, a directory always is.
pub(super) async fn import(
    store: &Arc<ImageStore>,
    path: &str,
    pull: bool,
    say: Say<'_>,
) -> Result<ImageRecord, BaseError> {
    let path = PathBuf::from(path);
    let failed = |action: &'static str| {
        let path = path.clone();
        move |source: io::Error| BaseError::Rootfs { action, path, source }
    };
    // Links are followed: the path is the user's own, as for any other program.
    let found = fs::metadata(&path).map_err(failed("find"))?;
    if found.is_dir() {
        if path.components().count() == 1 {
            let source =
                io::Error::other("it is the root of this host, which changes while it is read");
            return Err(failed("import")(source));
        }
        say(format!("base {}: reading the directory", path.display()));
        let layer = directory(store, &path).await?;
        let diff_id = layer.as_ref().map(|layer| layer.record.diff_id);
        return commit(store, diff_id, &path, say).await;
    }
    if !found.is_file() {
        let source = io::Error::other("it is neither a directory nor a file");
        return Err(failed("import")(source));
    }
    let key = format!("rootfs:{}#{}", path.display(), identity(&found));
    if !pull && let Some((image, _)) = pinned(store, &key).await? {
        say(format!("base {}: unchanged, {}", path.display(), image.digest));
        return Ok(image);
    }
    say(format!("base {}: reading the tarball", path.display()));
    let file = File::open(&path).map_err(failed("open"))?;
    // What is read is what is pinned, whatever the path leads to by now.
    let opened = file.metadata().map_err(failed("look at"))?;
    let key = format!("rootfs:{}#{}", path.display(), identity(&opened));
    let watched = file.try_clone().map_err(failed("open"))?;
    let layer = store.import_layer(Box::new(file), None, &[]).await;
    // One that is written to may well look whole, with parts of two contents.
    let written = |found: &Metadata| (found.size(), found.mtime(), found.mtime_nsec());
    let now = watched.metadata().map_err(failed("look at"))?;
    if written(&now) != written(&opened) {
        let source = io::Error::other("it was written to meanwhile; build again when it is whole");
        return Err(failed("read")(source));
    }
    let layer = layer.map_err(BaseError::Store)?;
    let image = commit(store, Some(layer.diff_id), &path, say).await?;
    let unchanged =
        fs::metadata(&path).is_ok_and(|now| key.ends_with(&format!("#{}", identity(&now))));
    if unchanged {
        pin(store, &key, &image, "rootfs").await?;
    }
    Ok(image)
}

/// What tells the state of a tarball from any other; `None` for what has to be read to know.
pub(super) fn state(path: &str) -> Option<String> {
    let found = fs::metadata(path).ok().filter(Metadata::is_file)?;
    Some(format!("rootfs:{path}#{}", identity(&found)))
}

async fn directory(store: &Arc<ImageStore>, path: &Path) -> Result<Option<SealedLayer>, BaseError> {
    let what = format!("the rootfs {}", path.display());
    let sealed = seal_directory(store, what, path.to_owned(), &[], UpperOptions::default()).await;
    let sealed = sealed.map_err(|source| BaseError::Import { path: path.to_owned(), source })?;
    Ok(sealed.layer)
}

async fn commit(
    store: &ImageStore,
    layer: Option<DiffId>,
    path: &Path,
    say: Say<'_>,
) -> Result<ImageRecord, BaseError> {
    let layers: Vec<DiffId> = layer.into_iter().collect();
    let created_by = vec!["rootfs".to_owned(); layers.len()];
    let image = NewImage { layers, created_by, ..NewImage::default() };
    let image = store.commit_image(image).await.map_err(BaseError::Store)?;
    say(format!("base {}: {}", path.display(), image.digest));
    Ok(image)
}

/// Changes whenever the file is another one or was written to. The change time cannot be set by hand.
fn identity(found: &Metadata) -> String {
    format!(
        "{}:{}:{}:{}.{:09}:{}.{:09}",
        found.dev(),
        found.ino(),
        found.size(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec()
    )
}
