//! The proof that layers can be mounted, and the repair of indexes that are missing or damaged.

use std::path::PathBuf;
use std::sync::Arc;

use kiln_content::BlobStore;
use kiln_layer::{Index, LayerTree, Limits, read_tar_tree};
use kiln_metadata::{ImageRecord, LayerRecord};
use kiln_types::DiffId;

use super::index::{IndexFiles, IndexKey};
use super::{ImageStore, MAX_LAYERS};
use crate::ImagesError;
use crate::blocking::blocking;

/// What the kernel needs to mount a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountableLayer {
    /// The index file.
    pub index: PathBuf,
    /// The tars that it refers to, in the order in which the mount has to name them.
    pub devices: Vec<PathBuf>,
}

impl ImageStore {
    /// Proves that `layers` (base first) are whole: the tar of each has its size, the index of each
    /// opens. An index that is missing or damaged is made again from the tar.
    pub async fn prove_layers(
        &self,
        layers: &[DiffId],
    ) -> Result<Vec<MountableLayer>, ImagesError> {
        let rows = self.layer_rows(layers).await?;
        let indexer = Indexer::new(self);
        blocking(move || (1..=rows.len()).map(|count| indexer.prove(&rows[..count])).collect())
            .await
    }

    /// Proves that an image is whole: its manifest and config with their sizes, and its layers.
    pub async fn check(&self, image: &ImageRecord) -> Result<(), ImagesError> {
        let blobs = Arc::clone(&self.blobs);
        let documents = [
            (image.digest, image.manifest_size, "find the manifest of the image"),
            (image.config_digest, image.config_size, "find the config of the image"),
        ];
        blocking(move || {
            documents.into_iter().try_for_each(|(digest, size, action)| {
                blobs.prove(&digest, size).map_err(|source| ImagesError::Blob { action, source })
            })
        })
        .await?;
        self.prove_layers(&image.layers).await.map(drop)
    }

    /// The rows of `layers`, in their order.
    pub(super) async fn layer_rows(
        &self,
        layers: &[DiffId],
    ) -> Result<Vec<LayerRecord>, ImagesError> {
        if layers.len() > MAX_LAYERS {
            return Err(ImagesError::TooManyLayers { found: layers.len(), limit: MAX_LAYERS });
        }
        let rows = self
            .metadata
            .get_layers(layers)
            .await
            .map_err(|source| ImagesError::Metadata { action: "look up layers", source })?;
        for (number, layer) in layers.iter().enumerate() {
            if rows.get(number).is_none_or(|row| row.diff_id != *layer) {
                return Err(ImagesError::LayerMissing { layer: *layer });
            }
        }
        Ok(rows)
    }
}

/// What the blocking part of proving and indexing needs.
#[derive(Debug)]
pub(super) struct Indexer {
    blobs: Arc<dyn BlobStore>,
    indexes: Arc<IndexFiles>,
    limits: Limits,
}

impl Indexer {
    pub(super) fn new(store: &ImageStore) -> Self {
        Self {
            blobs: Arc::clone(&store.blobs),
            indexes: Arc::clone(&store.indexes),
            limits: store.limits.clone(),
        }
    }

    /// Proves the topmost of `rows`; those below it have been proven.
    pub(super) fn prove(&self, rows: &[LayerRecord]) -> Result<MountableLayer, ImagesError> {
        let (row, below) = rows.split_last().expect("there is a layer to prove");
        let layer = row.diff_id;
        self.blobs
            .prove(&layer.0, row.size)
            .map_err(|source| ImagesError::LayerDamaged { layer, source })?;
        let key = key_of(rows);
        let devices = match self.indexes.devices(&key) {
            Ok(Some(devices)) => devices,
            found => {
                match found {
                    Err(error) => {
                        tracing::warn!(%layer, ?error, "making a damaged index again");
                    }
                    // A chain that the layer was not part of before has no index yet.
                    _ if row.needs_parents => {
                        tracing::debug!(%layer, "indexing a layer for a chain");
                    }
                    _ => tracing::warn!(%layer, "making a missing index again"),
                }
                self.reindex(&key, row, below)?;
                self.indexes
                    .devices(&key)
                    .map_err(|source| ImagesError::Index { layer, source })?
                    .ok_or(ImagesError::LayerMissing { layer })?
            }
        };
        let devices = devices
            .iter()
            .map(|device| {
                if rows.iter().any(|row| row.diff_id == *device) {
                    Ok(self.blobs.path(&device.0))
                } else {
                    Err(ImagesError::ForeignDevice { layer, device: *device })
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(MountableLayer { index: self.indexes.path(&key), devices })
    }

    /// Whether an index is there and opens.
    pub(super) fn is_sound(&self, key: &IndexKey) -> bool {
        matches!(self.indexes.devices(key), Ok(Some(_)))
    }

    /// Writes the index of `row` on top of `below`, whose indexes are sound.
    pub(super) fn write(
        &self,
        key: &IndexKey,
        tree: &LayerTree,
        row: &LayerRecord,
        below: &[LayerRecord],
    ) -> Result<(), ImagesError> {
        let failed = |source| ImagesError::Index { layer: row.diff_id, source };
        let parents: Vec<Index> = if row.needs_parents {
            (1..=below.len())
                .map(|count| self.indexes.read(&key_of(&below[..count])).map_err(failed))
                .collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        self.indexes.write(key, tree, row.diff_id, row.size, &parents)
    }

    fn reindex(
        &self,
        key: &IndexKey,
        row: &LayerRecord,
        below: &[LayerRecord],
    ) -> Result<(), ImagesError> {
        let layer = row.diff_id;
        let tar = self
            .blobs
            .open(&layer.0)
            .map_err(|source| ImagesError::LayerDamaged { layer, source })?;
        let (tree, _) = read_tar_tree(&tar, &self.limits)
            .map_err(|source| ImagesError::ReadLayer { layer: Some(layer), source })?;
        self.write(key, &tree, row, below)
    }
}

/// What the index of the topmost of `rows` is filed under.
fn key_of(rows: &[LayerRecord]) -> IndexKey {
    let chain: Vec<DiffId> = rows.iter().map(|row| row.diff_id).collect();
    IndexKey::of(&chain, rows.last().is_some_and(|row| row.needs_parents))
}
