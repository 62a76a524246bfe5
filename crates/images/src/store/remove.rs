//! An image's way out: rows first, files after, and only what nothing else needs.

use std::collections::HashSet;
use std::sync::Arc;

use kiln_content::ContentError;
use kiln_metadata::{ImageRecord, MetadataError};
use kiln_types::{ChainId, DiffId, Digest};

use super::ImageStore;
use super::index::IndexKey;
use crate::ImagesError;
use crate::blocking::blocking;

/// What a removal did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The image, if it is gone; `None` when only a name of it is.
    pub image: Option<Digest>,
    /// The bytes of the files that were removed.
    pub bytes: u64,
}

impl ImageStore {
    /// Removes a name. The image stays, also when that was its last name.
    pub async fn remove_name(&self, text: &str) -> Result<Removed, ImagesError> {
        let _changes = self.changes.lock().await;
        let (image, Some(name)) = self.find(text).await? else {
            let problem = "it is a digest; give one of the image's names".to_owned();
            return Err(ImagesError::NotAName { text: text.to_owned(), problem });
        };
        self.check_unused_name(&image, &name.to_string()).await?;
        self.metadata.remove_name(&name).await.map_err(row)?;
        Ok(Removed::default())
    }

    /// Removes an image with all that only it needs. By a name while it has others: only that name.
    /// [`ImagesError::InUse`] when a sandbox or snapshot needs it.
    pub async fn remove_image(&self, text: &str) -> Result<Removed, ImagesError> {
        let _changes = self.changes.lock().await;
        let (image, name) = self.find(text).await?;
        if let Some(name) = name {
            let names = self.metadata.names_of(&image.digest).await.map_err(row)?;
            if names.len() > 1 {
                self.check_unused_name(&image, &name.to_string()).await?;
                self.metadata.remove_name(&name).await.map_err(row)?;
                return Ok(Removed::default());
            }
        }
        let users = self.metadata.users_of_image(&image.digest).await.map_err(row)?;
        if !users.is_empty() {
            return Err(ImagesError::InUse { image: image.digest, users });
        }
        kiln_failpoint::pass("image.remove");
        self.metadata.remove_image(&image.digest).await.map_err(row)?;
        kiln_failpoint::pass("image.unrecorded");
        let bytes = self.free(&image).await?;
        Ok(Removed { image: Some(image.digest), bytes })
    }

    /// The name of a snapshot goes with the snapshot, never before it.
    async fn check_unused_name(&self, image: &ImageRecord, name: &str) -> Result<(), ImagesError> {
        let path = name.strip_suffix(":latest").unwrap_or(name);
        match self.metadata.find_snapshot(path).await.map_err(row)? {
            Some(snapshot) if snapshot.image == image.digest => {
                Err(ImagesError::InUse { image: image.digest, users: vec![snapshot.name] })
            }
            _ => Ok(()),
        }
    }

    /// Removes those of `added` that no image needs and nobody holds, from `chain`, which has them base
    /// first. This is what follows a failure: what cannot be removed is only said in the log.
    pub async fn discard_layers(&self, chain: &[DiffId], added: &[DiffId]) {
        let _changes = self.changes.lock().await;
        if let Err(error) = self.try_discard(chain, added).await {
            tracing::warn!(?error, ?added, "layers of a failed operation are left");
        }
    }

    async fn try_discard(&self, chain: &[DiffId], added: &[DiffId]) -> Result<(), ImagesError> {
        let others = self.all_images().await?;
        for count in 1..=chain.len() {
            let layer = chain[count - 1];
            let needed = others.iter().any(|other| other.layers.contains(&layer));
            if !added.contains(&layer) || needed || self.holds.has(&layer) {
                continue;
            }
            if let Some(id) = ChainId::of(&chain[..count]) {
                self.remove_index(IndexKey::Chain(id)).await?;
            }
            self.free_layer(layer).await?;
        }
        Ok(())
    }

    /// Removes what only `image` needed; its row is gone already. Gives the bytes that were freed.
    async fn free(&self, image: &ImageRecord) -> Result<u64, ImagesError> {
        let others = self.all_images().await?;
        let mut bytes = 0;
        for document in [image.digest, image.config_digest] {
            let needed =
                others.iter().any(|other| [other.digest, other.config_digest].contains(&document));
            if !needed {
                bytes += self.remove_blob(document).await?;
            }
        }
        let needed: HashSet<DiffId> =
            others.iter().flat_map(|other| other.layers.clone()).collect();
        for count in 1..=image.layers.len() {
            let chain = &image.layers[..count];
            let held = self.holds.has(&chain[count - 1]);
            let shared = others.iter().any(|other| other.layers.starts_with(chain));
            if let (Some(id), false) = (ChainId::of(chain), held || shared) {
                bytes += self.remove_index(IndexKey::Chain(id)).await?;
            }
        }
        for layer in distinct(&image.layers) {
            if !needed.contains(&layer) {
                bytes += self.free_layer(layer).await?;
            }
        }
        Ok(bytes)
    }

    /// Removes a layer that no image needs, unless it is held.
    pub(super) async fn free_layer(&self, layer: DiffId) -> Result<u64, ImagesError> {
        if self.holds.has(&layer) {
            return Ok(0);
        }
        self.metadata.remove_steps_of_layer(&layer).await.map_err(row)?;
        self.metadata.remove_layer(&layer).await.map_err(row)?;
        kiln_failpoint::pass("layer.unrecorded");
        Ok(self.remove_index(IndexKey::Layer(layer)).await? + self.remove_blob(layer.0).await?)
    }

    pub(super) async fn remove_blob(&self, digest: Digest) -> Result<u64, ImagesError> {
        let blobs = Arc::clone(&self.blobs);
        blocking(move || {
            let failed = |source| ImagesError::Blob { action: "remove a blob", source };
            let size = match blobs.info(&digest) {
                Ok(info) => info.size,
                Err(ContentError::NotFound { .. }) => 0,
                Err(error) => return Err(failed(error)),
            };
            blobs.remove(&digest).map_err(failed)?;
            Ok(size)
        })
        .await
    }

    pub(super) async fn remove_index(&self, key: IndexKey) -> Result<u64, ImagesError> {
        let indexes = Arc::clone(&self.indexes);
        blocking(move || indexes.remove(&key)).await
    }
}

/// Each layer once, in order.
fn distinct(layers: &[DiffId]) -> Vec<DiffId> {
    let mut seen = HashSet::new();
    layers.iter().copied().filter(|layer| seen.insert(*layer)).collect()
}

fn row(source: MetadataError) -> ImagesError {
    ImagesError::Metadata { action: "update the image's rows", source }
}
