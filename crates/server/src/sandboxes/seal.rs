//! A sandbox's disk as a layer.

use std::sync::Arc;
use std::time::Duration;

use kiln_build::snapshot::{self, Sealed};
use kiln_metadata::{ImageRecord, SandboxRecord};
use kiln_types::api::SandboxStatus;
use kiln_types::{ErrorCode, SandboxId};

use super::create::runtime_error;
use super::{Sandboxes, not_running};
use crate::problem::ApiError;

/// How often a sandbox is tried to be let run on, and the pause in between.
const THAW_ATTEMPTS: u32 = 3;
const THAW_PAUSE: Duration = Duration::from_millis(200);

/// A sandbox that stands still, or is about to. It runs on when this is dropped, whatever happened.
struct Still {
    sandboxes: Option<Arc<Sandboxes>>,
    id: SandboxId,
}

impl Still {
    fn new(sandboxes: &Arc<Sandboxes>, id: SandboxId) -> Self {
        Self { sandboxes: Some(Arc::clone(sandboxes)), id }
    }

    /// Lets it run on, and says when that does not work.
    async fn end(mut self) -> Result<(), ApiError> {
        let Some(sandboxes) = self.sandboxes.clone() else { return Ok(()) };
        let thawed = sandboxes.thaw(self.id).await;
        // Only now: whoever gives up waiting leaves the work to `drop`.
        self.sandboxes = None;
        thawed
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        let Some(sandboxes) = self.sandboxes.take() else { return };
        let id = self.id;
        tokio::spawn(async move {
            // It is said in the log, and there is nobody else to tell.
            let _ = sandboxes.thaw(id).await;
        });
    }
}

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
        }
        // Before the freeze: one that is given up half-way may take hold later.
        let still = live.is_some().then(|| Still::new(self, id));
        let sealed = match still {
            None => self.seal_upper(id, &image).await,
            Some(still) => {
                let frozen = self.parts.runtime.freeze(id).await;
                kiln_failpoint::pass("snapshot.frozen");
                let sealed = match frozen {
                    Ok(()) => self.seal_upper(id, &image).await,
                    Err(error) => Err(runtime_error(&error)),
                };
                // The first error is the one to tell.
                let thawed = still.end().await;
                kiln_failpoint::pass("snapshot.thawed");
                sealed.and_then(|sealed| thawed.map(|()| sealed))
            }
        };
        Ok(SealedDisk { sandbox: record, image, sealed: sealed? })
    }

    /// Lets a sandbox run on, if need be in several attempts.
    async fn thaw(&self, id: SandboxId) -> Result<(), ApiError> {
        let mut attempt = 1;
        loop {
            let Err(error) = self.parts.runtime.thaw(id).await else { return Ok(()) };
            // A sandbox that ended while it stood still needs no thaw.
            if self.live(id).is_none_or(|live| live.exit.borrow().is_some()) {
                return Ok(());
            }
            if attempt == THAW_ATTEMPTS {
                tracing::error!(sandbox = %id, error = &error as &dyn std::error::Error, "a sandbox stands still and cannot be made to run on");
                return Err(runtime_error(&error)
                    .hint(format!("stop and start it: `kiln stop {id}`, `kiln start {id}`")));
            }
            attempt += 1;
            tokio::time::sleep(THAW_PAUSE).await;
        }
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
