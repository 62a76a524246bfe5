//! Everything that is stored, read and held against what it must be.
//!
//! It goes on beside all other work: an object is held while it is read, and what is found wrong is
//! looked at once more with all changes of images standing still, before it is said.

mod depend;
mod examine;
mod files;
mod repair;
mod rows;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use kiln_metadata::{ImageRecord, LayerRecord};
use kiln_types::api::{Affected, Finding, FindingKind, FsckChecked, WayOut};
use kiln_types::{DiffId, Digest};

use super::ImageStore;
use crate::ImagesError;
use crate::blocking::blocking;

pub(super) use depend::Rows;
pub use examine::{Examiner, Fault};
pub use files::{Leftover, leftovers};
pub(super) use files::{Listing, Needed, allocated};
pub use repair::Repaired;

/// How far it is, told from time to time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsckProgress {
    /// Bytes of blobs that were read.
    pub bytes: u64,
    /// Bytes of blobs there are by the rows.
    pub total: u64,
}

/// Told how far it is; called on threads of any kind.
pub type OnProgress = Arc<dyn Fn(FsckProgress) + Send + Sync>;

/// What was looked at and found.
#[derive(Debug, Default)]
pub struct Examined {
    /// What was looked at.
    pub checked: FsckChecked,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl ImageStore {
    /// Looks at the rows, every blob, every index and every file of the store. Changes nothing.
    ///
    /// Rows that cannot be read are a finding; the blobs are read and hashed all the same.
    pub async fn fsck(self: &Arc<Self>, progress: OnProgress) -> Result<Examined, ImagesError> {
        let mut run = Run {
            store: Arc::clone(self),
            examined: Examined::default(),
            progress,
            done: FsckProgress::default(),
            sound: HashSet::new(),
            unsound: HashSet::new(),
        };
        let rows = match run.database().await {
            Ok(rows) => rows,
            Err(error) => {
                run.unreadable_rows(&error);
                run.blobs_alone().await?;
                return Ok(run.examined);
            }
        };
        run.done.total = rows.layers.values().map(|layer| layer.size).sum();
        run.layers(&rows).await?;
        run.images(&rows).await?;
        run.files().await?;
        let layers: Vec<DiffId> = rows.layers.keys().copied().collect();
        self.release_unneeded(&layers).await?;
        Ok(run.examined)
    }
}

/// One look at everything.
struct Run {
    store: Arc<ImageStore>,
    examined: Examined,
    progress: OnProgress,
    done: FsckProgress,
    /// Blobs that were read and are right.
    sound: HashSet<Digest>,
    unsound: HashSet<Digest>,
}

impl Run {
    /// Reads and hashes the tar of every layer.
    async fn layers(&mut self, rows: &Rows) -> Result<(), ImagesError> {
        let mut layers: Vec<&LayerRecord> = rows.layers.values().collect();
        layers.sort_by_key(|layer| layer.diff_id);
        for layer in layers {
            let diff_id = layer.diff_id;
            let hold = self.store.hold(&[diff_id]).await;
            let still = self.store.metadata.get_layer(&diff_id).await;
            // Whoever removed it has taken the row first.
            let Some(row) = still.map_err(read_rows)? else { continue };
            let fault = self.blob(diff_id.0, row.size).await?;
            drop(hold);
            if let Some(fault) = fault {
                let source = self.store.metadata.get_layer_source(&diff_id).await;
                let way_out = match source.map_err(read_rows)? {
                    Some(_) => WayOut::PullAgain,
                    None => rows.way_to_layer(&diff_id),
                };
                let affects = rows.affected(&rows.images_with(&diff_id));
                let path = self.store.blobs.path(&diff_id.0);
                self.find(fault, diff_id.to_string(), Some(&path), affects, way_out);
            }
        }
        Ok(())
    }

    /// Holds documents, rows and indexes of every image against each other.
    async fn images(&mut self, rows: &Rows) -> Result<(), ImagesError> {
        let mut examiner = self.store.examiner();
        let mut indexed: HashSet<super::IndexKey> = HashSet::new();
        for image in &rows.images {
            let hold = self.store.hold(&image.layers).await;
            if self.is_gone(image).await? {
                continue;
            }
            self.examined.checked.images += 1;
            if self.documents(rows, image).await? {
                let layers = rows.layers_of(image);
                let (looked, of_image) = (image.clone(), layers.clone());
                let (back, fault) = blocking(move || {
                    let fault = examiner.image(&looked, &of_image).err();
                    Ok((examiner, fault))
                })
                .await?;
                examiner = back;
                if let Some(fault) = fault
                    && !self.is_gone(image).await?
                {
                    let affects = rows.affected(&BTreeSet::from([image.digest]));
                    let way_out = self.way_to_image(rows, image).await?;
                    self.find(fault, image.digest.to_string(), None, affects, way_out);
                }
            }
            let layers = rows.layers_of(image);
            if layers.len() == image.layers.len() {
                for count in 1..=layers.len() {
                    let chain = layers[..count].to_vec();
                    if indexed.insert(examine::key_of(&chain)) {
                        examiner = self.index(rows, examiner, chain).await?;
                    }
                }
            }
            drop(hold);
        }
        let mut alone: Vec<&LayerRecord> =
            rows.layers.values().filter(|layer| !layer.needs_parents).collect();
        alone.sort_by_key(|layer| layer.diff_id);
        for layer in alone {
            if !indexed.contains(&super::IndexKey::Layer(layer.diff_id)) {
                let hold = self.store.hold(&[layer.diff_id]).await;
                let still = self.store.metadata.get_layer(&layer.diff_id).await;
                if still.map_err(read_rows)?.is_some() {
                    examiner = self.index(rows, examiner, vec![*layer]).await?;
                }
                drop(hold);
            }
        }
        Ok(())
    }

    /// The index of the topmost of `chain`.
    async fn index(
        &mut self,
        rows: &Rows,
        mut examiner: Examiner,
        chain: Vec<LayerRecord>,
    ) -> Result<Examiner, ImagesError> {
        let top = *chain.last().expect("there is a layer to index");
        // What is damaged says nothing of what is made of it; the tar is a finding already.
        let tars = if top.needs_parents { &chain[..] } else { &chain[chain.len() - 1..] };
        if tars.iter().any(|row| self.unsound.contains(&row.diff_id.0)) {
            return Ok(examiner);
        }
        self.examined.checked.indexes += 1;
        let path = examiner.index_path(&chain);
        let affected = if top.needs_parents {
            let ids: Vec<DiffId> = chain.iter().map(|row| row.diff_id).collect();
            let images = rows.images.iter().filter(|image| image.layers.starts_with(&ids));
            images.map(|image| image.digest).collect()
        } else {
            rows.images_with(&top.diff_id)
        };
        let (examiner, fault) = blocking(move || {
            let fault = examiner.index(&chain).err();
            Ok((examiner, fault))
        })
        .await?;
        if let Some(fault) = fault {
            let affects = rows.affected(&affected);
            let subject = top.diff_id.to_string();
            self.find(fault, subject, Some(&path), affects, WayOut::Repair);
        }
        Ok(examiner)
    }

    /// Reads and hashes manifest and config; whether both are right.
    async fn documents(&mut self, rows: &Rows, image: &ImageRecord) -> Result<bool, ImagesError> {
        let documents =
            [(image.digest, image.manifest_size), (image.config_digest, image.config_size)];
        let mut right = true;
        for (digest, size) in documents {
            if self.sound.contains(&digest) {
                continue;
            }
            if self.unsound.contains(&digest) {
                right = false;
                continue;
            }
            let Some(fault) = self.blob(digest, size).await? else { continue };
            right = false;
            if self.is_gone(image).await? {
                return Ok(false);
            }
            let affects = rows.affected(&rows.images_of(&digest));
            let way_out =
                if digest == image.digest && ImageStore::made_manifest(image, rows).is_some() {
                    WayOut::Repair
                } else {
                    self.way_to_image(rows, image).await?
                };
            let path = self.store.blobs.path(&digest);
            self.find(fault, digest.to_string(), Some(&path), affects, way_out);
        }
        Ok(right)
    }

    async fn way_to_image(&self, rows: &Rows, image: &ImageRecord) -> Result<WayOut, ImagesError> {
        let source = self.store.metadata.get_image_source(&image.digest).await;
        Ok(match source.map_err(read_rows)? {
            Some(_) => WayOut::PullAgain,
            None => rows.way_to_image(image),
        })
    }

    /// Whether an image was removed meanwhile; waits for a removal that is under way.
    async fn is_gone(&self, image: &ImageRecord) -> Result<bool, ImagesError> {
        let _changes = self.store.changes.lock().await;
        let found = self.store.metadata.get_image(&image.digest).await;
        Ok(found.map_err(read_rows)?.is_none())
    }

    /// Reads and hashes one blob.
    async fn blob(&mut self, digest: Digest, size: u64) -> Result<Option<Fault>, ImagesError> {
        let examiner = self.store.examiner();
        let (progress, mut done) = (Arc::clone(&self.progress), self.done);
        let (fault, done) = blocking(move || {
            let fault = examiner.blob(&digest, size, &mut |more| {
                done.bytes += more;
                progress(done);
            });
            Ok((fault.err(), done))
        })
        .await?;
        self.examined.checked.blobs += 1;
        self.examined.checked.bytes += done.bytes - self.done.bytes;
        self.done = done;
        if fault.is_none() { &mut self.sound } else { &mut self.unsound }.insert(digest);
        Ok(fault)
    }

    /// Reads and hashes every blob file, where the rows do not say which there must be.
    async fn blobs_alone(&mut self) -> Result<(), ImagesError> {
        let blobs = Arc::clone(&self.store.blobs);
        let found = blocking(move || {
            blobs.list().map_err(|source| ImagesError::Blob { action: "list the blobs", source })
        })
        .await?;
        self.done.total = found.iter().map(|blob| blob.size).sum();
        for blob in found {
            if let Some(fault) = self.blob(blob.digest, blob.size).await? {
                let path = self.store.blobs.path(&blob.digest);
                let affects = Affected::default();
                self.find(fault, blob.digest.to_string(), Some(&path), affects, WayOut::Lost);
            }
        }
        Ok(())
    }

    fn find(
        &mut self,
        fault: Fault,
        subject: String,
        path: Option<&Path>,
        affects: Affected,
        way_out: WayOut,
    ) {
        let path = path.map(|path| self.store.shown(path));
        let Fault { kind, problem } = fault;
        tracing::warn!(?kind, subject, problem, "found damage");
        self.examined.findings.push(Finding {
            kind,
            subject,
            path,
            problem,
            affects,
            way_out,
            repair: None,
        });
    }

    fn found(&self, kind: FindingKind) -> bool {
        self.examined.findings.iter().any(|finding| finding.kind == kind)
    }
}

fn read_rows(source: kiln_metadata::MetadataError) -> ImagesError {
    ImagesError::Metadata { action: "read the rows", source }
}
