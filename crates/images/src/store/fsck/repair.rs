//! Undoing damage with what is here. What has to come from a registry is somebody else's to fetch; here
//! it is put out of use, so that nothing runs with it and a pull or a build puts the right bytes there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use kiln_metadata::{DamageKind, ImageRecord};
use kiln_types::api::{Finding, FindingKind, Repair, WayOut};
use kiln_types::{DiffId, Digest};

use super::examine::chain;
use super::files::{Needed, allocated, stale_sessions};
use super::{Rows, read_rows};
use crate::ImagesError;
use crate::blocking::blocking;
use crate::store::ImageStore;
use crate::store::gc::{QUARANTINE, remove_aside, tree_bytes};
use crate::store::index::IndexKey;

/// What came of the repair of one finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// All that can be done is done.
    Done(Repair),
    /// It is out of use. `reference` is where it can be had again, by a pull of which
    /// [`ImageStore::settle_repair`] is to be told.
    Fetch {
        /// A reference with the digest of a manifest.
        reference: String,
        /// The damaged file, moved aside.
        aside: Option<PathBuf>,
        /// What was damaged.
        digest: Digest,
    },
}

fn done(detail: impl Into<String>, bytes_removed: u64) -> Repaired {
    Repaired::Done(Repair { repaired: true, detail: detail.into(), bytes_removed })
}

fn failed(detail: impl Into<String>) -> Repaired {
    Repaired::Done(Repair { repaired: false, detail: detail.into(), bytes_removed: 0 })
}

impl ImageStore {
    /// Repairs what a finding of [`ImageStore::fsck`] speaks of, as far as that is possible here.
    pub async fn repair(self: &Arc<Self>, finding: &Finding) -> Result<Repaired, ImagesError> {
        match finding.kind {
            FindingKind::IndexDamaged | FindingKind::IndexMissing => {
                self.repair_index(finding).await
            }
            FindingKind::BlobDamaged | FindingKind::BlobMissing | FindingKind::BlobUnreadable => {
                self.repair_blob(finding).await
            }
            FindingKind::ImageInconsistent => self.repair_image(finding).await,
            FindingKind::DatabaseDamaged => self.repair_database().await,
            FindingKind::RowDamaged | FindingKind::ReferenceDangling => {
                self.repair_row(finding).await
            }
            FindingKind::FileUnreferenced => self.remove_unreferenced(finding).await,
            FindingKind::FileForeign => {
                let Some(path) = &finding.path else { return Ok(failed("it has no path")) };
                let (aside, bytes) = self.move_aside(&self.data_dir.join(path)).await?;
                Ok(done(format!("moved to {} ({bytes} bytes)", self.shown(&aside)), 0))
            }
            FindingKind::FileTemporary => self.remove_stale(finding).await,
            FindingKind::UnpackedDamaged
            | FindingKind::UpperMissing
            | FindingKind::UpperUnreferenced
            | FindingKind::LogUnreferenced => Ok(failed("it is no part of the image store")),
        }
    }

    /// Makes an index again from its tar.
    async fn repair_index(&self, finding: &Finding) -> Result<Repaired, ImagesError> {
        let path = finding.path.as_ref().map(|path| self.data_dir.join(path));
        let key = path.as_ref().and_then(|path| path.file_name()?.to_str());
        let Some(key) = key.and_then(IndexKey::of_file_name) else {
            return Ok(failed("it has no path"));
        };
        let rows = Rows::load(self).await.map_err(read_rows)?;
        let image = rows.images.iter().find(|image| {
            (1..=image.layers.len()).any(|count| is_key(&rows, &image.layers[..count], &key))
        });
        let layers = match (image, &key) {
            (Some(image), _) => image.layers.clone(),
            (None, IndexKey::Layer(layer)) => vec![*layer],
            (None, IndexKey::Chain(_)) => return Ok(failed("no image needs it any more")),
        };
        let _hold = self.hold(&layers).await;
        self.remove_index(key).await?;
        match self.prove_layers(&layers).await {
            Ok(_) => {}
            Err(error) => return Ok(failed(chain(&error))),
        }
        Ok(done("made again from its tar", 0))
    }

    /// Puts a damaged blob out of use, and makes it again if that can be done here.
    async fn repair_blob(self: &Arc<Self>, finding: &Finding) -> Result<Repaired, ImagesError> {
        let Ok(digest) = finding.subject.parse::<Digest>() else {
            return Ok(failed("its digest is not known"));
        };
        let rows = Rows::load(self).await.map_err(read_rows)?;
        let path = self.blobs.path(&digest);
        let aside = if path.symlink_metadata().is_ok() {
            Some(self.move_aside(&path).await?)
        } else {
            None
        };
        let made = rows.images.iter().find(|image| image.digest == digest);
        if let Some(manifest) = made.and_then(|image| Self::made_manifest(image, &rows)) {
            let blobs = Arc::clone(&self.blobs);
            blocking(move || {
                blobs.put(&manifest).map_err(|source| ImagesError::Blob {
                    action: "store a manifest again",
                    source,
                })
            })
            .await?;
            let bytes = self.drop_aside(aside).await?;
            return Ok(done("made again from the image's rows", bytes));
        }
        if let Some(reference) = self.source_of(&rows, &digest).await? {
            return Ok(Repaired::Fetch { reference, aside: aside.map(|(path, _)| path), digest });
        }
        Ok(failed(self.out_of_use(finding.way_out, aside.as_ref().map(|(path, _)| path.as_path()))))
    }

    /// Where a blob can be pulled from.
    async fn source_of(&self, rows: &Rows, digest: &Digest) -> Result<Option<String>, ImagesError> {
        let layer = self.metadata.get_layer_source(&DiffId(*digest)).await.map_err(read_rows)?;
        if layer.is_some() {
            return Ok(layer);
        }
        for image in rows.images_of(digest) {
            let source = self.metadata.get_image_source(&image).await.map_err(read_rows)?;
            if source.is_some() {
                return Ok(source);
            }
        }
        Ok(None)
    }

    /// Ends the repair of what was to be fetched: looks whether it is right now, and removes the damaged
    /// file if it is. `problem` is what the pull failed with.
    pub async fn settle_repair(
        self: &Arc<Self>,
        finding: &Finding,
        digest: Digest,
        reference: &str,
        aside: Option<PathBuf>,
        problem: Option<String>,
    ) -> Result<Repair, ImagesError> {
        if let Some(problem) = problem {
            let stays = self.out_of_use(finding.way_out, aside.as_deref());
            let detail = format!("{reference} could not be pulled: {problem}; {stays}");
            return Ok(Repair { repaired: false, detail, bytes_removed: 0 });
        }
        let blobs = Arc::clone(&self.blobs);
        let verified = blocking(move || Ok(blobs.verify(&digest, &mut |_| {}))).await?;
        if let Err(error) = verified {
            let detail = format!("pulled from {reference}, but it is not right: {}", chain(&error));
            return Ok(Repair { repaired: false, detail, bytes_removed: 0 });
        }
        let bytes = match aside {
            Some(path) => self.drop_aside(Some((path, 0))).await?,
            None => 0,
        };
        let detail = format!("pulled again from {reference}");
        Ok(Repair { repaired: true, detail, bytes_removed: bytes })
    }

    fn out_of_use(&self, way_out: WayOut, aside: Option<&Path>) -> String {
        let what = match way_out {
            WayOut::BuildAgain => "build what needs it again; until then it is refused",
            _ => "what needs it is refused from now on",
        };
        match aside {
            Some(path) => format!("{what}; the damaged file is at {}", self.shown(path)),
            None => what.to_owned(),
        }
    }

    /// Writes an image's rows anew from its own manifest and config.
    async fn repair_image(&self, finding: &Finding) -> Result<Repaired, ImagesError> {
        let Ok(digest) = finding.subject.parse::<Digest>() else {
            return Ok(failed("its digest is not known"));
        };
        let found = self.metadata.get_image(&digest).await.map_err(read_rows)?;
        let Some(image) = found else { return Ok(failed("it has no row any more")) };
        match self.rewrite(&image).await {
            Ok(()) => Ok(done("its rows were written anew from its manifest and config", 0)),
            Err(error) => Ok(failed(chain(&error))),
        }
    }

    async fn rewrite(&self, image: &ImageRecord) -> Result<(), ImagesError> {
        let blobs = Arc::clone(&self.blobs);
        let digest = image.digest;
        let (manifest, config) = blocking(move || {
            let read = |digest: &Digest| {
                blobs.read(digest).map_err(|source| ImagesError::Blob {
                    action: "read a document of the image",
                    source,
                })
            };
            let manifest = read(&digest)?;
            let parsed = crate::oci::Manifest::parse(&manifest).map_err(|source| {
                ImagesError::Document { document: format!("manifest {digest}"), source }
            })?;
            let config = read(&parsed.config.digest)?;
            Ok((manifest, config))
        })
        .await?;
        let parsed = crate::oci::OciConfig::parse(&config).map_err(|source| {
            ImagesError::Document { document: format!("config of {digest}"), source }
        })?;
        self.import_image(&manifest, &config, parsed.rootfs.diff_ids, None).await.map(drop)
    }

    /// Makes the indexes of the database again; what is wrong with the tables themselves stays.
    async fn repair_database(&self) -> Result<Repaired, ImagesError> {
        if let Err(error) = self.metadata.rebuild_indexes().await {
            return Ok(failed(format!("{}; restore kiln.sqlite from a backup", chain(&error))));
        }
        let verified = self.metadata.verify().await.map_err(read_rows)?;
        match verified.damage.iter().find(|damage| damage.kind == DamageKind::File) {
            None => Ok(done("the database's indexes were made again", 0)),
            Some(damage) => Ok(failed(format!(
                "{} still holds; restore kiln.sqlite from a backup",
                damage.problem
            ))),
        }
    }

    /// Removes a row that is only there to save work.
    async fn repair_row(&self, finding: &Finding) -> Result<Repaired, ImagesError> {
        let (table, key) = finding.subject.split_once(' ').unwrap_or((&finding.subject, ""));
        if finding.way_out != WayOut::Repair {
            let what = match table {
                "images" | "image_layers" | "layers" => "remove the image and make it again",
                "image_names" => "remove the name and give it again",
                "sandboxes" => "remove the sandbox, or restore a backup",
                "snapshots" => "remove the snapshot, or restore a backup",
                _ => "restore a backup",
            };
            return Ok(failed(format!("what it said is not known: {what}")));
        }
        match self.metadata.drop_row(table, key).await {
            Ok(()) => Ok(done("removed; what it saved is done again when it is needed", 0)),
            Err(error) => Ok(failed(chain(&error))),
        }
    }

    async fn remove_unreferenced(&self, finding: &Finding) -> Result<Repaired, ImagesError> {
        let Some(path) = finding.path.as_ref().map(|path| self.data_dir.join(path)) else {
            return Ok(failed("it has no path"));
        };
        let _changes = self.changes.lock().await;
        self.check_database().await?;
        let rows = Rows::load(self).await.map_err(read_rows)?;
        let needed = Needed::by(&rows);
        let bytes = allocated(&path);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(key) = IndexKey::of_file_name(name) {
            if !self.needs_index(&needed, &key) {
                self.remove_index(key).await?;
                return Ok(done("removed", bytes));
            }
        } else if let Ok(blob) = format!("sha256:{name}").parse::<Digest>()
            && !self.needs_blob(&needed, &blob)
        {
            self.remove_blob(blob).await?;
            return Ok(done("removed", bytes));
        }
        Ok(done("it is needed by now", 0))
    }

    async fn remove_stale(&self, finding: &Finding) -> Result<Repaired, ImagesError> {
        let Some(path) = finding.path.as_ref().map(|path| self.data_dir.join(path)) else {
            return Ok(failed("it has no path"));
        };
        let tmp = self.data_dir.join("blobs/tmp");
        blocking(move || {
            // Whoever opened the store since has cleared it away.
            if path.symlink_metadata().is_err() {
                return Ok(done("removed", 0));
            }
            let stale = stale_sessions(&tmp).map_err(|source| ImagesError::Io {
                action: "list",
                path: tmp,
                source,
            })?;
            if !stale.iter().any(|left| left.path == path) {
                return Ok(done("somebody writes it after all", 0));
            }
            let bytes = tree_bytes(&path);
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.map_err(|source| ImagesError::Io { action: "remove", path, source })?;
            Ok(done("removed", bytes))
        })
        .await
    }

    /// Moves a file or directory into quarantine; gives its new place and its bytes on the disk.
    async fn move_aside(&self, path: &Path) -> Result<(PathBuf, u64), ImagesError> {
        let dir = self.data_dir.join(QUARANTINE);
        let name = self.shown(path).replace('/', "_");
        let path = path.to_owned();
        blocking(move || {
            let failed = |action, path: &Path| {
                let path = path.to_owned();
                move |source| ImagesError::Io { action, path, source }
            };
            std::fs::create_dir_all(&dir).map_err(failed("make the directory", &dir))?;
            let mut millis = Timestamp::now().as_millisecond();
            let mut aside = dir.join(format!("{millis}-{name}"));
            while aside.symlink_metadata().is_ok() {
                millis += 1;
                aside = dir.join(format!("{millis}-{name}"));
            }
            let bytes = tree_bytes(&path);
            std::fs::rename(&path, &aside).map_err(failed("move aside", &path))?;
            let sync = |dir: &Path| std::fs::File::open(dir).and_then(|dir| dir.sync_all());
            sync(&dir).map_err(failed("sync", &dir))?;
            if let Some(parent) = path.parent() {
                sync(parent).map_err(failed("sync", parent))?;
            }
            Ok((aside, bytes))
        })
        .await
    }

    async fn drop_aside(&self, aside: Option<(PathBuf, u64)>) -> Result<u64, ImagesError> {
        let Some((path, _)) = aside else { return Ok(0) };
        let bytes = tree_bytes(&path);
        remove_aside(path).await?;
        Ok(bytes)
    }
}

/// Whether `key` is that of the index of the topmost of `layers`.
fn is_key(rows: &Rows, layers: &[DiffId], key: &IndexKey) -> bool {
    let needs_parents =
        layers.last().and_then(|layer| rows.layers.get(layer)).is_some_and(|row| row.needs_parents);
    IndexKey::of(layers, needs_parents) == *key
}
