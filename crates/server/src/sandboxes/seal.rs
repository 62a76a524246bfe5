//! A sandbox's disk as a layer.

use std::sync::Arc;

use kiln_build::snapshot::{self, Sealed};
use kiln_metadata::{ImageRecord, SandboxRecord};
use kiln_types::api::SandboxStatus;
use kiln_types::{ErrorCode, SandboxId};

use super::create::runtime_error;
use super::{Sandboxes, not_running};
use crate::problem::ApiError;

/// What a sandbox has changed, as a layer of the store.
#[derive(Debug)]
pub(crate) struct SealedDisk {
    pub(crate) sandbox: SandboxRecord,
    /// The image that it lies on.
    pub(crate) image: ImageRecord,
    pub(crate) sealed: Sealed,
}

impl Sandboxes {
    /// Reads a sandbox's disk into a layer. A running sandbox stands still meanwhile, and runs on
    /// whatever happens.
    pub(crate) async fn seal(self: &Arc<Self>, sandbox: &str) -> Result<SealedDisk, ApiError> {
        let id = self.find(sandbox).await?.id;
        let _lock = self.locks.lock(id).await;
        let record = self.row(id).await?;
        if record.status == SandboxStatus::Removing {
            return Err(not_running(&record));
        }
        let image =
            self.parts.metadata.get_image(&record.image_digest).await?.ok_or_else(|| {
                ApiError::new(
                    ErrorCode::StoreCorrupt,
                    format!("the image {} of sandbox {id} is gone", record.image_digest),
                )
            })?;
        let live = self.live(id);
        if let Some(live) = &live {
            // What is written back now need not be waited for while the sandbox stands still.
            if let Err(error) = live.agent().await.sync().await {
                tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "could not sync before a snapshot");
            }
            self.parts.runtime.freeze(id).await.map_err(|error| runtime_error(&error))?;
        }
        let sealed = self.seal_upper(id, &image).await;
        if live.is_some() {
            // A sandbox that ended while it stood still needs no thaw.
            if let Err(error) = self.parts.runtime.thaw(id).await
                && self.live(id).is_some_and(|live| live.exit.borrow().is_none())
            {
                return Err(runtime_error(&error));
            }
        }
        Ok(SealedDisk { sandbox: record, image, sealed: sealed? })
    }

    async fn seal_upper(&self, id: SandboxId, image: &ImageRecord) -> Result<Sealed, ApiError> {
        let images = Arc::clone(&self.parts.images);
        let roots = Arc::clone(&self.parts.roots);
        let parents = image.layers.clone();
        // A task of its own, so that not even a panic in it leaves the sandbox standing still.
        let task = tokio::spawn(async move {
            snapshot::seal(&images, &roots, &id.to_string(), &parents, Vec::new()).await
        });
        match task.await {
            Ok(sealed) => Ok(sealed?),
            Err(error) => Err(ApiError::of(ErrorCode::Internal, &error)),
        }
    }
}
