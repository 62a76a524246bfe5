//! The rows as they are at one moment, and what depends on what by them.

use std::collections::{BTreeSet, HashMap, HashSet};

use kiln_metadata::{
    BasePin, ImageRecord, LayerRecord, MetadataError, SandboxRecord, SnapshotRecord, StepUse,
};
use kiln_types::api::{Affected, SandboxStatus, WayOut};
use kiln_types::{DiffId, Digest, ImageName};

use crate::store::ImageStore;

const PAGE: u32 = 500;

/// All rows that speak of files.
#[derive(Debug, Default)]
pub(in crate::store) struct Rows {
    pub(in crate::store) images: Vec<ImageRecord>,
    pub(in crate::store) layers: HashMap<DiffId, LayerRecord>,
    pub(in crate::store) names: Vec<(ImageName, Digest)>,
    pub(in crate::store) snapshots: Vec<SnapshotRecord>,
    pub(in crate::store) sandboxes: Vec<SandboxRecord>,
    pub(in crate::store) steps: Vec<StepUse>,
    pub(in crate::store) pins: Vec<(BasePin, Option<jiff::Timestamp>)>,
}

impl Rows {
    pub(in crate::store) async fn load(store: &ImageStore) -> Result<Self, MetadataError> {
        let metadata = &store.metadata;
        let mut rows = Self {
            steps: metadata.list_steps().await?,
            pins: metadata.list_base_pins().await?,
            ..Self::default()
        };
        // What refers comes before what it refers to, so that nothing seems to dangle which is new.
        loop {
            let cursor = rows.sandboxes.last().map(|last| last.id);
            let page = metadata.list_sandboxes(cursor.as_ref(), PAGE).await?;
            let last = page.len() < PAGE as usize;
            rows.sandboxes.extend(page);
            if last {
                break;
            }
        }
        loop {
            let cursor = rows.snapshots.last().map(|last| last.name.clone());
            let page = match metadata.list_snapshots(cursor.as_deref(), PAGE).await {
                // The last one of the page was removed just now: begin again.
                Err(MetadataError::UnknownCursor { .. }) => {
                    rows.snapshots.clear();
                    continue;
                }
                page => page?,
            };
            let last = page.len() < PAGE as usize;
            rows.snapshots.extend(page);
            if last {
                break;
            }
        }
        rows.names = metadata.list_names().await?;
        loop {
            let cursor = rows.images.last().map(|last| last.digest);
            let page = match metadata.list_images(cursor.as_ref(), PAGE).await {
                Err(MetadataError::UnknownCursor { .. }) => {
                    rows.images.clear();
                    continue;
                }
                page => page?,
            };
            let last = page.len() < PAGE as usize;
            rows.images.extend(page);
            if last {
                break;
            }
        }
        let layers = metadata.list_layers().await?;
        rows.layers = layers.into_iter().map(|layer| (layer.diff_id, layer)).collect();
        Ok(rows)
    }

    /// The rows of the layers of an image, as far as they are there.
    pub(in crate::store) fn layers_of(&self, image: &ImageRecord) -> Vec<LayerRecord> {
        image.layers.iter().filter_map(|layer| self.layers.get(layer).copied()).collect()
    }

    /// The images that something uses: by a name, as a snapshot, in a sandbox.
    pub(in crate::store) fn used_images(&self) -> HashSet<Digest> {
        let names = self.names.iter().map(|(_, image)| *image);
        let snapshots = self.snapshots.iter().map(|snapshot| snapshot.image);
        let sandboxes = self.sandboxes.iter().map(|sandbox| sandbox.image_digest);
        names.chain(snapshots).chain(sandboxes).collect()
    }

    /// What depends on these images.
    pub(in crate::store) fn affected(&self, images: &BTreeSet<Digest>) -> Affected {
        let names = self.names.iter().filter(|(_, image)| images.contains(image));
        let snapshots = self.snapshots.iter().filter(|row| images.contains(&row.image));
        let sandboxes = self.sandboxes.iter().filter(|row| {
            images.contains(&row.image_digest) && row.status != SandboxStatus::Removing
        });
        Affected {
            images: images.iter().map(ToString::to_string).collect(),
            names: names.map(|(name, _)| name.to_string()).collect(),
            snapshots: snapshots.map(|row| row.name.clone()).collect(),
            sandboxes: sandboxes.map(|row| row.id.to_string()).collect(),
        }
    }

    /// The images that have a layer.
    pub(in crate::store) fn images_with(&self, layer: &DiffId) -> BTreeSet<Digest> {
        let images = self.images.iter().filter(|image| image.layers.contains(layer));
        images.map(|image| image.digest).collect()
    }

    /// The images whose manifest or config a blob is.
    pub(in crate::store) fn images_of(&self, document: &Digest) -> BTreeSet<Digest> {
        let images = self.images.iter();
        let images = images.filter(|image| [image.digest, image.config_digest].contains(document));
        images.map(|image| image.digest).collect()
    }

    /// How a layer that no registry has can be had again.
    pub(in crate::store) fn way_to_layer(&self, layer: &DiffId) -> WayOut {
        let step = self.steps.iter().any(|step| step.layer == Some(*layer));
        let base = self.images.iter().any(|image| {
            image.layers.contains(layer)
                && self.pins.iter().any(|(pin, _)| pin.image == image.digest)
        });
        // A layer in an image that a build made is a step of it, or belongs to its base.
        let built = self
            .images
            .iter()
            .any(|image| image.layers.contains(layer) && image.definition_key.is_some());
        if step || base || built { WayOut::BuildAgain } else { WayOut::Lost }
    }

    /// How the documents of an image that no registry has can be had again.
    pub(in crate::store) fn way_to_image(&self, image: &ImageRecord) -> WayOut {
        let pinned = self.pins.iter().any(|(pin, _)| pin.image == image.digest);
        if image.definition_key.is_some() || pinned { WayOut::BuildAgain } else { WayOut::Lost }
    }
}
