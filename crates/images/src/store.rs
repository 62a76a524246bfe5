//! The image store: blobs, index files and rows, kept in step.

mod commit;
mod describe;
mod find;
mod fsck;
mod gc;
mod hold;
mod index;
mod layer;
mod paths;
mod prove;
mod remove;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_content::{BlobStore, LocalStore};
use kiln_layer::Limits;
use kiln_metadata::{ImageRecord, MetadataStore};

use crate::ImagesError;

pub use commit::NewImage;
pub use fsck::{
    Examined, Examiner, Fault, FsckProgress, Leftover, OnProgress, Repaired, leftovers,
};
pub use gc::{Collected, GcScope};
pub use hold::LayerHold;
pub use layer::PendingLayer;
pub use prove::MountableLayer;
pub use remove::Removed;
pub use usage::StoreBytes;

use hold::Holds;
use index::{IndexFiles, IndexKey};

/// How many layers an image may have; overlayfs takes 500 lower directories, some of which are the
/// runtime's own.
pub const MAX_LAYERS: usize = 256;

/// How many rows are asked for at once.
const PAGE: u32 = 500;

/// Images and layers of one data directory, which no other process uses meanwhile.
#[derive(Debug)]
pub struct ImageStore {
    data_dir: PathBuf,
    blobs: Arc<dyn BlobStore>,
    metadata: Arc<dyn MetadataStore>,
    indexes: Arc<IndexFiles>,
    limits: Limits,
    /// Held while images are added and removed, so that no layer goes while an image that needs it comes.
    changes: tokio::sync::Mutex<()>,
    holds: Arc<Holds>,
}

impl ImageStore {
    /// Opens `<data_dir>/blobs` and `<data_dir>/indexes`, making what is not there. Blocking.
    pub fn open(
        data_dir: &Path,
        metadata: Arc<dyn MetadataStore>,
    ) -> Result<Arc<Self>, ImagesError> {
        std::fs::create_dir_all(data_dir).map_err(|source| ImagesError::Io {
            action: "make the directory",
            path: data_dir.to_owned(),
            source,
        })?;
        let blobs = LocalStore::open(data_dir.join("blobs"))
            .map_err(|source| ImagesError::Blob { action: "open the blob store", source })?;
        Ok(Arc::new(Self {
            data_dir: data_dir.to_owned(),
            blobs: Arc::new(blobs),
            metadata,
            indexes: Arc::new(IndexFiles::open(&data_dir.join("indexes"))?),
            limits: Limits::default(),
            changes: tokio::sync::Mutex::new(()),
            holds: Arc::default(),
        }))
    }

    /// The blobs: layers under their diffIDs, manifests and configs.
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.blobs
    }

    /// The rows.
    pub fn metadata(&self) -> &Arc<dyn MetadataStore> {
        &self.metadata
    }

    async fn all_images(&self) -> Result<Vec<ImageRecord>, ImagesError> {
        let mut images: Vec<ImageRecord> = Vec::new();
        let mut place = None;
        loop {
            // By places, so that an image that is removed meanwhile does not break the list off.
            let page =
                self.metadata.list_images_below(place, PAGE).await.map_err(|source| {
                    ImagesError::Metadata { action: "list the images", source }
                })?;
            let last = page.len() < PAGE as usize;
            place = page.last().map(|(place, _)| *place);
            images.extend(page.into_iter().map(|(_, image)| image));
            if last {
                return Ok(images);
            }
        }
    }
}
