//! What a crash left: files without rows, and layers that nothing came to need.

use std::collections::HashSet;
use std::sync::Arc;

use kiln_types::{ChainId, DiffId, Digest};

use super::ImageStore;
use super::index::IndexKey;
use crate::ImagesError;
use crate::blocking::blocking;

impl ImageStore {
    /// Removes blobs and indexes that no row speaks of, and layers that no image has and no step made,
    /// unless they are held. Gives the bytes that were freed.
    pub async fn sweep(&self) -> Result<u64, ImagesError> {
        // Blobs of images come under this lock, and layers under a hold.
        let _changes = self.changes.lock().await;
        let failed =
            |source| ImagesError::Metadata { action: "list what a crash left behind", source };
        let mut bytes = 0;
        for layer in self.metadata.list_unused_layers().await.map_err(failed)? {
            bytes += self.free_layer(layer.diff_id).await?;
        }
        let layers = self.metadata.list_layers().await.map_err(failed)?;
        let layers: HashSet<DiffId> = layers.into_iter().map(|layer| layer.diff_id).collect();
        let mut documents: HashSet<Digest> = HashSet::new();
        let mut chains: HashSet<ChainId> = HashSet::new();
        for image in self.all_images().await? {
            documents.extend([image.digest, image.config_digest]);
            let prefixes = (1..=image.layers.len()).map(|count| &image.layers[..count]);
            chains.extend(prefixes.filter_map(ChainId::of));
        }
        let (blobs, indexes) = (Arc::clone(&self.blobs), Arc::clone(&self.indexes));
        let (found, keys) = blocking(move || {
            let list = blobs.list();
            let found =
                list.map_err(|source| ImagesError::Blob { action: "list the blobs", source })?;
            Ok((found, indexes.list()?))
        })
        .await?;
        let needed = |layer: &DiffId| layers.contains(layer) || self.holds.has(layer);
        for blob in found {
            if !documents.contains(&blob.digest) && !needed(&DiffId(blob.digest)) {
                tracing::info!(blob = %blob.digest, "removing what a crash left");
                bytes += self.remove_blob(blob.digest).await?;
            }
        }
        for key in keys {
            let known = match &key {
                IndexKey::Layer(layer) => needed(layer),
                // One that is needed after all is made again from the layer.
                IndexKey::Chain(chain) => chains.contains(chain),
            };
            if !known {
                bytes += self.remove_index(key).await?;
            }
        }
        Ok(bytes)
    }
}
