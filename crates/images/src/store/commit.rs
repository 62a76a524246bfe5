//! An image's way in: config and manifest → blobs → row.

use std::sync::Arc;

use jiff::Timestamp;
use kiln_content::BlobInfo;
use kiln_metadata::{ImageRecord, TemplateDefaults};
use kiln_types::{DiffId, Digest, ImageConfig, ImageName};

use super::ImageStore;
use super::fsck::Rows;
use crate::ImagesError;
use crate::blocking::blocking;
use crate::oci::{Manifest, OciConfig, config_bytes, image_config, manifest_bytes};

/// An image to be made from layers of the store.
#[derive(Clone, Debug, Default)]
pub struct NewImage {
    /// What sandboxes get from it.
    pub config: ImageConfig,
    /// Its layers, base first.
    pub layers: Vec<DiffId>,
    /// The name that is to point to it.
    pub name: Option<ImageName>,
    /// The key of the definition that it was built from.
    pub definition_key: Option<Digest>,
    /// Resource defaults that go with the name; an image that is new has them itself, too.
    pub defaults: TemplateDefaults,
    /// How its layers came to be: a line for each layer, base first.
    pub created_by: Vec<String>,
}

impl ImageStore {
    /// Makes an image. Equal config, layers and `created_by` give an equal digest, always.
    pub async fn commit_image(&self, image: NewImage) -> Result<ImageRecord, ImagesError> {
        let rows = self.layer_rows(&image.layers).await?;
        let config = config_bytes(&image.config, &image.layers, &image.created_by);
        let layers: Vec<_> = rows.iter().map(|row| (row.diff_id.0, row.size)).collect();
        let manifest = manifest_bytes((Digest::of(&config), config.len() as u64), &layers);
        let extra = (image.definition_key, image.defaults);
        self.put_image(manifest, config, image.layers, extra, image.name.as_ref()).await
    }

    /// Takes in an image that somebody else made, byte for byte. Its layers have to be in the store.
    pub async fn import_image(
        &self,
        manifest: &[u8],
        config: &[u8],
        layers: Vec<DiffId>,
        name: Option<&ImageName>,
    ) -> Result<ImageRecord, ImagesError> {
        let extra = (None, TemplateDefaults::default());
        self.put_image(manifest.to_vec(), config.to_vec(), layers, extra, name).await
    }

    async fn put_image(
        &self,
        manifest: Vec<u8>,
        config: Vec<u8>,
        layers: Vec<DiffId>,
        (definition_key, defaults): (Option<Digest>, TemplateDefaults),
        name: Option<&ImageName>,
    ) -> Result<ImageRecord, ImagesError> {
        check(&manifest, &config, &layers)?;
        let _changes = self.changes.lock().await;
        self.prove_layers(&layers).await?;
        let blobs = Arc::clone(&self.blobs);
        let (config, manifest) = blocking(move || {
            let put = |bytes: &[u8], action| {
                blobs.put(bytes).map_err(|source| ImagesError::Blob { action, source })
            };
            Ok::<(BlobInfo, BlobInfo), _>((
                put(&config, "store the config of the image")?,
                put(&manifest, "store the manifest of the image")?,
            ))
        })
        .await?;
        kiln_failpoint::pass("image.stored");
        let failed = |source| ImagesError::Metadata { action: "record the image", source };
        // The same content may come again, from a pull or from another definition.
        let known = self.metadata.get_image(&manifest.digest).await.map_err(failed)?;
        let record = ImageRecord {
            digest: manifest.digest,
            manifest_size: manifest.size,
            config_digest: config.digest,
            config_size: config.size,
            layers,
            definition_key: definition_key
                .or_else(|| known.as_ref().and_then(|known| known.definition_key)),
            // Others may use what is known.
            defaults: known.as_ref().map_or(defaults, |known| known.defaults),
            created_at: known.as_ref().map_or_else(Timestamp::now, |known| known.created_at),
        };
        match (&known, name) {
            (Some(known), Some(name)) => {
                if *known != record {
                    self.metadata.put_image(&record, None).await.map_err(failed)?;
                }
                let named = self.metadata.put_template(name, &record.digest, defaults).await;
                named.map_err(failed)?;
            }
            (_, name) => self.metadata.put_image(&record, name).await.map_err(failed)?,
        }
        kiln_failpoint::pass("image.recorded");
        Ok(record)
    }
}

impl ImageStore {
    /// The manifest that Kiln would make of the image's config and layers, if it is the image's own: then
    /// it can be made again whatever becomes of the file.
    pub(super) fn made_manifest(image: &ImageRecord, rows: &Rows) -> Option<Vec<u8>> {
        let layers: Vec<_> =
            rows.layers_of(image).iter().map(|row| (row.diff_id.0, row.size)).collect();
        let made = manifest_bytes((image.config_digest, image.config_size), &layers);
        (Digest::of(&made) == image.digest).then_some(made)
    }
}

/// Whether manifest, config and layers belong together and are of use to a sandbox.
fn check(manifest: &[u8], config: &[u8], layers: &[DiffId]) -> Result<(), ImagesError> {
    let image = Digest::of(manifest);
    let mismatch = |problem| Err(ImagesError::Mismatch { image, problem });
    let manifest = Manifest::parse(manifest).map_err(|source| ImagesError::Document {
        document: format!("manifest {image}"),
        source,
    })?;
    let digest = Digest::of(config);
    if (manifest.config.digest, manifest.config.size) != (digest, config.len() as u64) {
        return mismatch(format!(
            "the manifest names config {} of {} bytes, but the config is {digest} of {} bytes",
            manifest.config.digest,
            manifest.config.size,
            config.len(),
        ));
    }
    let document = |source| ImagesError::Document { document: format!("config {digest}"), source };
    let config = OciConfig::parse(config).map_err(document)?;
    image_config(&config).map_err(document)?;
    if manifest.layers.len() != layers.len() {
        let count = manifest.layers.len();
        return mismatch(format!("the manifest has {count} layers, not {}", layers.len()));
    }
    if config.rootfs.diff_ids != layers {
        let list = |layers: &[DiffId]| {
            layers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        return mismatch(format!(
            "the config names the layers [{}], but the layers are [{}]",
            list(&config.rootfs.diff_ids),
            list(layers),
        ));
    }
    Ok(())
}
