//! A layer's way in: archive → tar, digest and tree in one pass → blob → index → row.

use std::io::Read;
use std::sync::Arc;

use kiln_content::{BlobWriter, ContentError};
use kiln_layer::{Dropped, ReadLayer, read_layer_hashed};
use kiln_metadata::LayerRecord;
use kiln_types::{DiffId, Digest};

use super::ImageStore;
use super::index::IndexKey;
use super::prove::Indexer;
use crate::ImagesError;
use crate::blocking::blocking;

/// A layer that was read whole and is not visible yet. Dropping it leaves nothing.
#[derive(Debug)]
#[must_use = "a layer that is not finished is dropped"]
pub struct PendingLayer {
    writer: Box<dyn BlobWriter>,
    read: ReadLayer,
}

impl PendingLayer {
    /// The digest of its tar.
    pub fn diff_id(&self) -> DiffId {
        self.read.diff_id
    }

    /// The size of its tar in bytes.
    pub fn size(&self) -> u64 {
        self.read.tar_size
    }

    /// What its archive holds and sandboxes will not see.
    pub fn dropped(&self) -> &[Dropped] {
        self.read.tree.dropped()
    }
}

impl ImageStore {
    /// Reads a layer archive (tar, gzip or zstd, told apart by content) to its end, and stores, hashes
    /// and parses its tar on the way. Blocking. Nothing of it is visible before it is finished.
    pub fn ingest(
        &self,
        input: Box<dyn Read + Send>,
        expected: Option<DiffId>,
    ) -> Result<PendingLayer, ImagesError> {
        let mut writer = self
            .blobs
            .writer()
            .map_err(|source| ImagesError::Blob { action: "begin a layer", source })?;
        let digest = |writer: &&mut Box<dyn BlobWriter>| DiffId(writer.digest());
        let read = read_layer_hashed(input, &mut writer, digest, &self.limits)
            .map_err(|source| ImagesError::ReadLayer { layer: expected, source })?;
        match expected {
            Some(expected) if expected != read.diff_id => {
                Err(ImagesError::WrongDiffId { expected, found: read.diff_id })
            }
            _ => Ok(PendingLayer { writer, read }),
        }
    }

    /// Makes a layer durable: blob, index, row, in this order. `parents` are the layers below it, base
    /// first, which have to be in the store. When it fails, what it made is removed again.
    pub async fn finish_layer(
        &self,
        pending: PendingLayer,
        parents: &[DiffId],
    ) -> Result<LayerRecord, ImagesError> {
        let layer = pending.diff_id();
        let hold = self.hold(&[layer]).await;
        let known = self.metadata.get_layer(&layer).await.map_err(look_up)?.is_some();
        let result = self.store_layer(pending, parents).await;
        drop(hold);
        if result.is_err() && !known {
            let chain: Vec<DiffId> = parents.iter().copied().chain([layer]).collect();
            self.discard_layers(&chain, &[layer]).await;
        }
        result
    }

    /// [`ImageStore::ingest`] and [`ImageStore::finish_layer`].
    pub async fn import_layer(
        self: &Arc<Self>,
        input: Box<dyn Read + Send>,
        expected: Option<DiffId>,
        parents: &[DiffId],
    ) -> Result<LayerRecord, ImagesError> {
        let store = Arc::clone(self);
        let pending = blocking(move || store.ingest(input, expected)).await?;
        self.finish_layer(pending, parents).await
    }

    /// Whether a layer is in the store with its whole tar.
    pub async fn has_layer(&self, layer: &DiffId) -> Result<bool, ImagesError> {
        let Some(row) = self.metadata.get_layer(layer).await.map_err(look_up)? else {
            return Ok(false);
        };
        let blobs = Arc::clone(&self.blobs);
        blocking(move || match blobs.prove(&row.diff_id.0, row.size) {
            Ok(()) => Ok(true),
            Err(ContentError::NotFound { .. } | ContentError::WrongSize { .. }) => {
                tracing::warn!(layer = %row.diff_id, "a layer of the store is damaged");
                Ok(false)
            }
            Err(source) => Err(ImagesError::Blob { action: "examine a layer", source }),
        })
        .await
    }

    /// The layer that a compressed blob of a registry was found to unpack to.
    pub async fn known_blob(&self, compressed: &Digest) -> Result<Option<DiffId>, ImagesError> {
        self.metadata.get_blob_diff_id(compressed).await.map_err(look_up)
    }

    /// Remembers what a compressed blob of a registry unpacks to.
    pub async fn remember_blob(
        &self,
        compressed: &Digest,
        layer: &DiffId,
    ) -> Result<(), ImagesError> {
        self.metadata
            .put_blob_diff_id(compressed, layer)
            .await
            .map_err(|source| ImagesError::Metadata { action: "record a layer", source })
    }

    /// Remembers that an image and its layers can be had again from `reference`, which has the digest of
    /// the image's manifest.
    pub async fn remember_source(
        &self,
        image: &kiln_metadata::ImageRecord,
        reference: &str,
    ) -> Result<(), ImagesError> {
        self.metadata
            .put_source(&image.digest, &image.layers, reference)
            .await
            .map_err(|source| ImagesError::Metadata { action: "record a source", source })
    }

    async fn store_layer(
        &self,
        pending: PendingLayer,
        parents: &[DiffId],
    ) -> Result<LayerRecord, ImagesError> {
        let PendingLayer { writer, read } = pending;
        let record = LayerRecord {
            diff_id: read.diff_id,
            size: read.tar_size,
            needs_parents: read.tree.needs_parents(),
        };
        let below = if record.needs_parents { self.layer_rows(parents).await? } else { Vec::new() };
        let chain: Vec<DiffId> = parents.iter().copied().chain([record.diff_id]).collect();
        let indexer = Indexer::new(self);
        blocking(move || {
            writer
                .commit(Some(&record.diff_id.0))
                .map_err(|source| ImagesError::Blob { action: "store a layer", source })?;
            kiln_failpoint::pass("layer.stored");
            for count in 1..=below.len() {
                indexer.prove(&below[..count])?;
            }
            let key = IndexKey::of(&chain, record.needs_parents);
            if !indexer.is_sound(&key) {
                indexer.write(&key, &read.tree, &record, &below)?;
            }
            Ok(())
        })
        .await?;
        kiln_failpoint::pass("layer.indexed");
        self.metadata
            .put_layer(&record)
            .await
            .map_err(|source| ImagesError::Metadata { action: "record a layer", source })?;
        kiln_failpoint::pass("layer.recorded");
        Ok(record)
    }
}

fn look_up(source: kiln_metadata::MetadataError) -> ImagesError {
    ImagesError::Metadata { action: "look up a layer", source }
}
