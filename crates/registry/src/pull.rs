//! Pull: manifest → config → layers, into the image store, all of it or nothing.

mod layers;

use std::sync::Arc;

use kiln_images::oci::{
    Descriptor, MEDIA_CONFIG, MEDIA_DOCKER_CONFIG, MEDIA_DOCKER_MANIFEST, MEDIA_MANIFEST, Manifest,
    OciConfig, Platform, image_config,
};
use kiln_images::{ImageStore, ImagesError, MAX_LAYERS};
use kiln_metadata::ImageRecord;
use kiln_types::{DiffId, Digest, ImageName, Reference};

use crate::client::{Inner, RegistryClient, Report, all_failed};
use crate::document::Content;
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::platform;
use crate::progress::PullProgress;

use layers::LayerSpec;

/// The name that an image has in the store when the user gives it none: the reference without its
/// digest. `None` when nothing but the digest identifies it.
pub fn default_name(reference: &Reference) -> Option<ImageName> {
    let tag = reference.tag()?;
    format!("{}/{}:{tag}", reference.registry(), reference.repository()).parse().ok()
}

/// An image of which everything but the layers is here.
struct Found<'e> {
    endpoint: &'e Endpoint,
    manifest_bytes: Vec<u8>,
    digest: Digest,
    manifest: Manifest,
}

impl RegistryClient {
    /// Brings an image into the store and points `name` at it. Layers that are there are not fetched;
    /// whatever fails, nothing of the image is visible afterwards.
    pub async fn pull(
        &self,
        store: &Arc<ImageStore>,
        reference: &Reference,
        name: Option<&ImageName>,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<ImageRecord, RegistryError> {
        let inner = &self.inner;
        let stored = |source| RegistryError::store(reference, source);
        if let Some(digest) = reference.digest() {
            let present = present(store, digest, name, progress).await.map_err(stored)?;
            if let Some(image) = present {
                return Ok(image);
            }
        }
        let endpoints = Endpoint::all(&inner.config, reference)?;
        let found = inner.find(&endpoints, reference, progress).await?;
        let lock = inner.pull_lock(&found.digest);
        let _turn = lock.lock().await;
        if let Some(image) = present(store, &found.digest, name, progress).await.map_err(stored)? {
            return Ok(image);
        }
        let sources = sources(&endpoints, found.endpoint);
        progress(PullProgress::Resolved {
            digest: found.digest,
            source: found.endpoint.key.clone(),
            layers: found.manifest.layers.len(),
            size: found.manifest.layers.iter().map(|layer| layer.size).sum(),
        });
        let config = inner.config(&sources, &found.manifest.config, progress).await?;
        let layers = specs(&found, &config)?;
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
        let hold = store.hold(&diff_ids).await;
        let added = inner.pull_layers(store, &sources, &layers, reference, progress).await;
        let result = match added.result {
            Ok(()) => {
                let imported = store
                    .import_image(&found.manifest_bytes, &config, diff_ids.clone(), name)
                    .await
                    .map_err(stored);
                if let Ok(image) = &imported {
                    remember(store, reference, image).await;
                }
                imported
            }
            Err(error) => Err(error),
        };
        drop(hold);
        match &result {
            Ok(image) => progress(PullProgress::Finished { digest: image.digest }),
            Err(_) => store.discard_layers(&diff_ids, &added.layers).await,
        }
        result
    }
}

impl Inner {
    /// The manifest for this host from the first source that has it.
    async fn find<'e>(
        &self,
        endpoints: &'e [Endpoint],
        reference: &Reference,
        report: Report<'_>,
    ) -> Result<Found<'e>, RegistryError> {
        let mut failed = Vec::new();
        for endpoint in endpoints {
            match self.find_at(endpoint, reference, report).await {
                Ok(found) => return Ok(found),
                Err(error) if !error.blames_source() => return Err(error),
                Err(error) => {
                    if !endpoint.last {
                        let reason = error.one_line();
                        tracing::warn!(source = endpoint.key, reason, "a mirror is passed over");
                        let source = endpoint.key.clone();
                        report(PullProgress::SourceFailed { source, reason });
                    }
                    failed.push((endpoint, error));
                }
            }
        }
        Err(all_failed(reference, failed))
    }

    async fn find_at<'e>(
        &self,
        endpoint: &'e Endpoint,
        reference: &Reference,
        report: Report<'_>,
    ) -> Result<Found<'e>, RegistryError> {
        let pinned = reference.digest();
        let text = match (pinned, reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let mut fetched = self.manifest(endpoint, &text, pinned, report).await?;
        if let Content::Index(index) = &fetched.content {
            let asked = endpoint.asked(format!("manifest {text}"));
            let chosen = platform::choose(index, &asked)?.clone();
            if !matches!(chosen.media_type.as_str(), "" | MEDIA_MANIFEST | MEDIA_DOCKER_MANIFEST) {
                let media_type: String = chosen.media_type.chars().take(120).collect();
                let media_type = media_type.escape_debug();
                let problem = format!("its entry for this host has the media type `{media_type}`");
                return Err(RegistryError::Unsupported { asked, problem });
            }
            let text = chosen.digest.to_string();
            fetched = self.manifest(endpoint, &text, Some(&chosen.digest), report).await?;
            let (expected, found) = (chosen.size, fetched.bytes.len() as u64);
            if expected != found {
                let asked = endpoint.asked(format!("manifest {text}"));
                return Err(RegistryError::WrongSize { asked, expected, found });
            }
        }
        match fetched.content {
            Content::Manifest(manifest) => Ok(Found {
                endpoint,
                manifest_bytes: fetched.bytes,
                digest: fetched.digest,
                manifest,
            }),
            Content::Index(_) => Err(RegistryError::Unsupported {
                asked: endpoint.asked(format!("manifest {text}")),
                problem: "it is an index within an index".into(),
            }),
        }
    }

    async fn config(
        &self,
        sources: &[&Endpoint],
        config: &Descriptor,
        report: Report<'_>,
    ) -> Result<Vec<u8>, RegistryError> {
        let asked = sources[0].asked(format!("config {}", config.digest));
        if !matches!(config.media_type.as_str(), MEDIA_CONFIG | MEDIA_DOCKER_CONFIG) {
            let media_type: String = config.media_type.chars().take(120).collect();
            let media_type = media_type.escape_debug();
            let problem = format!("it is no image; its config has the media type `{media_type}`");
            return Err(RegistryError::Unsupported { asked, problem });
        }
        let mut failed = None;
        for source in sources {
            match self.config_blob(source, &config.digest, config.size, report).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("there is at least one source"))
    }
}

/// Notes where an image can be had again. Without the note it cannot be repaired from there, which is no
/// reason to refuse it.
async fn remember(store: &ImageStore, reference: &Reference, image: &ImageRecord) {
    let (registry, repository) = (reference.registry(), reference.repository());
    let source = format!("{registry}/{repository}@{}", image.digest);
    if let Err(error) = store.remember_source(image, &source).await {
        tracing::warn!(source, ?error, "where the image came from could not be noted");
    }
}

/// An image that is in the store already, whole.
async fn present(
    store: &ImageStore,
    digest: &Digest,
    name: Option<&ImageName>,
    report: Report<'_>,
) -> Result<Option<ImageRecord>, ImagesError> {
    let image = match store.resolve(&digest.to_string()).await {
        Ok(image) => image,
        Err(ImagesError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    if let Err(error) = store.check(&image).await {
        tracing::warn!(%digest, ?error, "an image of the store is damaged; pulling it again");
        return Ok(None);
    }
    if let Some(name) = name {
        match store.put_name(name, &image.digest).await {
            Ok(()) => {}
            // Somebody has removed it since it was found: then it is not there, and is fetched.
            Err(ImagesError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    report(PullProgress::Finished { digest: image.digest });
    Ok(Some(image))
}

/// The source that had the manifest, then those that were not asked yet.
fn sources<'e>(endpoints: &'e [Endpoint], first: &'e Endpoint) -> Vec<&'e Endpoint> {
    let rest = endpoints.iter().skip_while(|endpoint| !std::ptr::eq(*endpoint, first));
    rest.collect()
}

/// What has to be fetched, as manifest and config agree on it.
fn specs(found: &Found<'_>, config: &[u8]) -> Result<Vec<LayerSpec>, RegistryError> {
    let asked = found.endpoint.asked(format!("config {}", found.manifest.config.digest));
    let document = |source| RegistryError::Document { asked: asked.clone(), source };
    let config = OciConfig::parse(config).map_err(document)?;
    // Before gigabytes come for an image that could not be used.
    image_config(&config).map_err(document)?;
    let platform = Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: None,
    };
    platform::check(&platform, &asked)?;
    let (layers, diff_ids) = (&found.manifest.layers, &config.rootfs.diff_ids);
    let unsupported = |problem| Err(RegistryError::Unsupported { asked: asked.clone(), problem });
    if layers.len() != diff_ids.len() {
        return unsupported(format!(
            "it names {} layers, and the manifest {}",
            diff_ids.len(),
            layers.len()
        ));
    }
    if layers.len() > MAX_LAYERS {
        return unsupported(format!("{} layers are more than {MAX_LAYERS}", layers.len()));
    }
    layers
        .iter()
        .zip(diff_ids)
        .map(|(blob, diff_id)| LayerSpec::new(found.endpoint, blob.clone(), *diff_id))
        .collect()
}
