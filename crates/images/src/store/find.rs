//! Which image a text means.

use kiln_metadata::{ImageRecord, TemplateDefaults};
use kiln_types::{Digest, ImageName, Reference};

use super::ImageStore;
use crate::ImagesError;

/// The fewest hex digits that may stand for a whole digest.
const SHORTEST_PREFIX: usize = 12;

impl ImageStore {
    /// The image that `text` means: a name (`name[:tag]`), the short form of a name that a registry's
    /// image has (`debian:12` for `docker.io/library/debian:12`), a digest (`sha256:…`), or the
    /// beginning of one that no other image has, of at least twelve hex digits.
    ///
    /// The record's resource defaults are those of the name that it was found by.
    pub async fn resolve(&self, text: &str) -> Result<ImageRecord, ImagesError> {
        self.find(text).await.map(|(image, _)| image)
    }

    /// Points a name at an image of the store, without resource defaults.
    pub async fn put_name(&self, name: &ImageName, image: &Digest) -> Result<(), ImagesError> {
        self.put_template(name, image, TemplateDefaults::default()).await
    }

    /// Points a name at an image of the store, with resource defaults that go with this name alone.
    pub async fn put_template(
        &self,
        name: &ImageName,
        image: &Digest,
        defaults: TemplateDefaults,
    ) -> Result<(), ImagesError> {
        let _changes = self.changes.lock().await;
        if self.get(image).await?.is_none() {
            return Err(not_found(&image.to_string()));
        }
        if self.metadata.resolve_template(name).await.map_err(look_up)? == Some((*image, defaults))
        {
            return Ok(());
        }
        self.metadata
            .put_template(name, image, defaults)
            .await
            .map_err(|source| ImagesError::Metadata { action: "name the image", source })
    }

    /// The image, and the name it was found by.
    pub(super) async fn find(
        &self,
        text: &str,
    ) -> Result<(ImageRecord, Option<ImageName>), ImagesError> {
        if let Some(hex) = text.strip_prefix("sha256:") {
            if is_prefix(hex) && hex.len() < 64 {
                return Ok((self.find_prefix(text, hex).await?, None));
            }
            let digest = text.parse::<Digest>().map_err(|error| not_a_name(text, &error))?;
            let image = self.get(&digest).await?.ok_or_else(|| not_found(text))?;
            return Ok((image, None));
        }
        let name = text.parse::<ImageName>();
        let full = text.parse::<Reference>().ok().filter(|reference| reference.digest().is_none());
        let full = full.and_then(|reference| reference.to_string().parse::<ImageName>().ok());
        for name in name.iter().chain(&full) {
            let found = self.metadata.resolve_template(name).await.map_err(look_up)?;
            if let Some((digest, defaults)) = found {
                let image = self.get(&digest).await?.ok_or_else(|| not_found(text))?;
                return Ok((ImageRecord { defaults, ..image }, Some(name.clone())));
            }
        }
        if is_prefix(text) {
            return Ok((self.find_prefix(text, text).await?, None));
        }
        match name {
            Ok(_) => Err(not_found(text)),
            Err(error) => Err(not_a_name(text, &error)),
        }
    }

    async fn get(&self, digest: &Digest) -> Result<Option<ImageRecord>, ImagesError> {
        self.metadata.get_image(digest).await.map_err(look_up)
    }

    async fn find_prefix(&self, text: &str, hex: &str) -> Result<ImageRecord, ImagesError> {
        let mut images = self.all_images().await?;
        images.retain(|image| image.digest.hex().starts_with(hex));
        match images.len() {
            0 => Err(not_found(text)),
            1 => Ok(images.remove(0)),
            count => Err(ImagesError::Ambiguous { text: text.to_owned(), count }),
        }
    }
}

fn is_prefix(text: &str) -> bool {
    (SHORTEST_PREFIX..=64).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn look_up(source: kiln_metadata::MetadataError) -> ImagesError {
    ImagesError::Metadata { action: "look up an image", source }
}

fn not_found(text: &str) -> ImagesError {
    ImagesError::NotFound { text: text.chars().take(200).collect() }
}

fn not_a_name(text: &str, error: &dyn std::error::Error) -> ImagesError {
    let text = text.chars().take(200).collect();
    ImagesError::NotAName { text, problem: error.to_string() }
}
