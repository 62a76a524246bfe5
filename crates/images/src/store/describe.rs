//! What there is to say of an image.

use std::sync::Arc;

use kiln_metadata::ImageRecord;
use kiln_types::ImageConfig;
use kiln_types::api::{ImageInfo, ImageLayer};

use super::ImageStore;
use crate::ImagesError;
use crate::blocking::blocking;
use crate::oci::{OciConfig, image_config};

impl ImageStore {
    /// What sandboxes get from the image's config, as it is stored.
    pub async fn config(&self, image: &ImageRecord) -> Result<ImageConfig, ImagesError> {
        let blobs = Arc::clone(&self.blobs);
        let digest = image.config_digest;
        let bytes = blocking(move || {
            blobs.read(&digest).map_err(|source| ImagesError::Blob {
                action: "read the config of the image",
                source,
            })
        })
        .await?;
        OciConfig::parse(&bytes).and_then(|config| image_config(&config)).map_err(|source| {
            ImagesError::Document { document: format!("config {digest}"), source }
        })
    }

    /// The image as the API shows it.
    pub async fn info(&self, image: &ImageRecord) -> Result<ImageInfo, ImagesError> {
        let names = self.metadata.names_of(&image.digest).await.map_err(|source| {
            ImagesError::Metadata { action: "look up the image's names", source }
        })?;
        let rows = self.layer_rows(&image.layers).await?;
        let layers: Vec<ImageLayer> =
            rows.iter().map(|row| ImageLayer { diff_id: row.diff_id, size: row.size }).collect();
        Ok(ImageInfo {
            digest: image.digest,
            names: names.iter().map(ToString::to_string).collect(),
            size: layers.iter().map(|layer| layer.size).sum(),
            layers,
            config: self.config(image).await?,
            created_at: image.created_at,
        })
    }
}
