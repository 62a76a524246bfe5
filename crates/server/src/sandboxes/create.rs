//! Making a sandbox.

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use kiln_images::ImagesError;
use kiln_metadata::{ImageRecord, MetadataError, SandboxRecord};
use kiln_roots::LayerSource;
use kiln_runtime::{BoxError, Limits, RuntimeError, SandboxSpec, Slot, Userns};
use kiln_types::api::{CreateSandbox, SandboxInfo, SandboxStatus};
use kiln_types::{ErrorCode, SandboxId};

use super::names::{check_name, hostname};
use super::{Live, Parts, ProcessDefaults, Sandboxes, check_env};
use crate::limits;
use crate::problem::ApiError;
use crate::removal;

impl Sandboxes {
    /// Makes and starts a sandbox. After a failure nothing of it is left.
    pub(crate) async fn create(
        self: &Arc<Self>,
        request: CreateSandbox,
    ) -> Result<SandboxInfo, ApiError> {
        if let Some(name) = &request.name {
            check_name(name)?;
        }
        check_env(&request.env)?;
        let this = Arc::clone(self);
        self.detached(async move { this.create_now(request).await }).await
    }

    async fn create_now(self: &Arc<Self>, request: CreateSandbox) -> Result<SandboxInfo, ApiError> {
        let _name = self.claim_name(request.name.as_deref()).await?;
        let image = self.resolve_image(&request.image).await?;
        // The row of the sandbox will keep them; until it is written this does.
        let hold = self.parts.images.hold(&image.layers).await;
        let made = self.make(request, &image).await;
        drop(hold);
        if made.is_err() {
            self.free_if_removed(&image).await;
        }
        made
    }

    /// Makes a sandbox whose name and layers nobody takes away.
    async fn make(
        self: &Arc<Self>,
        request: CreateSandbox,
        image: &ImageRecord,
    ) -> Result<SandboxInfo, ApiError> {
        let metadata = &self.parts.metadata;
        // Whoever removed the image before the layers were held has taken them along.
        if metadata.get_image(&image.digest).await?.is_none() {
            return Err(ImagesError::NotFound { text: request.image }.into());
        }
        let limits = limits::in_force(
            &request.limits,
            &image.defaults,
            &self.parts.defaults,
            self.parts.roots.uppers().bounded(),
        )?;
        let mut record = SandboxRecord {
            id: SandboxId::new(),
            name: request.name,
            status: SandboxStatus::Running,
            image: request.image,
            image_digest: image.digest,
            env: request.env,
            limits,
            slot: None,
            address: None,
            reason: None,
            driver: request.driver.unwrap_or_else(|| self.parts.runtime.name().to_owned()),
            created_at: Timestamp::now(),
        };
        let _making = Making::begin(self, record.id);
        let live = match self.boot(&record, image, true).await {
            Ok(live) => live,
            Err(error) => {
                self.discard_upper(record.id).await;
                return Err(error);
            }
        };
        kiln_failpoint::pass("sandbox.booted");
        record.slot = Some(live.slot.0);
        record.address = live.address.map(|address| address.to_string());
        if let Err(error) = metadata.insert_sandbox(&record).await {
            self.discard(&live).await;
            return Err(match error {
                MetadataError::ImageMissing { .. } => {
                    ImagesError::NotFound { text: record.image }.into()
                }
                error => error.into(),
            });
        }
        kiln_failpoint::pass("sandbox.recorded");
        tracing::info!(sandbox = %record.id, image = %record.image, "sandbox made");
        self.attend(live);
        Ok(self.info(record))
    }

    /// Starts the sandbox of `record`; with `fresh`, on a new and empty disk.
    pub(super) async fn boot(
        &self,
        record: &SandboxRecord,
        image: &ImageRecord,
        fresh: bool,
    ) -> Result<Arc<Live>, ApiError> {
        let config = self.parts.images.config(image).await?;
        let layers: Vec<LayerSource> = self
            .parts
            .images
            .prove_layers(&image.layers)
            .await?
            .into_iter()
            .map(|layer| LayerSource { index: layer.index, devices: layer.devices })
            .collect();
        let process = ProcessDefaults::new(&config, &record.env, self.parts.ca_bundle);
        let spec = self.spec(record, &process);
        let roots = Arc::clone(&self.parts.roots);
        let upper = record.id.to_string();
        let disk = limits::for_disk(&record.limits, &self.parts.defaults);
        let root = move |userns: Userns<'_>| {
            if fresh {
                roots.uppers().create(&upper, disk)?;
            }
            Ok::<_, BoxError>(roots.mount(&layers, &upper, userns.fd, userns.base, false)?)
        };
        let runtime = &self.parts.runtime;
        let running = runtime.create(spec.clone(), Box::new(root)).await;
        let running = running.map_err(|error| runtime_error(&error))?;
        // From now on it has the slot that it was given.
        let spec = SandboxSpec { slot: Some(running.slot), ..spec };
        Ok(Live::new(running, process, runtime, spec))
    }

    /// What the driver is told about a sandbox.
    pub(super) fn spec(&self, record: &SandboxRecord, process: &ProcessDefaults) -> SandboxSpec {
        let limits: Limits = limits::for_runtime(&record.limits, &self.parts.defaults);
        SandboxSpec {
            id: record.id,
            hostname: hostname(record),
            env: process.env(),
            limits,
            slot: record.slot.map(Slot),
            network: true,
            driver: Some(record.driver.clone()),
        }
    }

    /// The image that `text` means: one of the store, or else one of the catalog, which is obtained.
    async fn resolve_image(&self, text: &str) -> Result<ImageRecord, ApiError> {
        match self.parts.images.resolve(text).await {
            Ok(image) => Ok(image),
            Err(missing @ ImagesError::NotFound { .. }) => {
                match self.parts.builder.resolve_catalog(text).await? {
                    Some(image) => Ok(image),
                    None => Err(ApiError::from(missing).hint(
                        "build it (`kiln build`), pull it (`kiln pull`), or use a name that `kiln images` or the catalog has",
                    )),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Does what is left of the removal of an image whose layers were held meanwhile.
    async fn free_if_removed(&self, image: &ImageRecord) {
        if let Ok(None) = self.parts.metadata.get_image(&image.digest).await {
            let Parts { images, roots, .. } = &self.parts;
            removal::discard_layers(images, roots, &image.layers, &image.layers).await;
        }
    }

    /// Removes all that there is of a sandbox without a row.
    async fn discard(&self, live: &Live) {
        if let Err(error) = self.parts.runtime.stop(live.id, std::time::Duration::ZERO).await {
            tracing::error!(sandbox = %live.id, error = &error as &dyn std::error::Error, "could not stop a sandbox that was not kept");
        }
        self.discard_upper(live.id).await;
        if let Err(error) = self.parts.metadata.release_slot(live.slot.0).await {
            tracing::error!(sandbox = %live.id, error = &error as &dyn std::error::Error, "could not release a slot");
        }
    }

    async fn discard_upper(&self, id: SandboxId) {
        if let Err(error) = self.remove_upper(id).await {
            tracing::error!(sandbox = %id, error = %error.problem, "could not remove a disk; the next start of the daemon will");
        }
    }

    /// Lets go of the disk of a sandbox that has ended. Nobody waits for it: what is still to be
    /// written can be much, and a new start finds it written or not.
    pub(super) fn rest_upper(&self, id: SandboxId) {
        let uppers = Arc::clone(self.parts.roots.uppers());
        self.tasks.spawn_blocking(move || {
            if let Err(error) = uppers.rest(&id.to_string()) {
                tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "could not let go of a disk");
            }
        });
    }

    /// Spares a sandbox that is about to be removed the writing of its disk.
    pub(super) async fn abandon_upper(&self, id: SandboxId) {
        let uppers = Arc::clone(self.parts.roots.uppers());
        let work = tokio::task::spawn_blocking(move || uppers.abandon(&id.to_string()));
        if let Ok(Err(error)) = work.await {
            // It only takes longer.
            tracing::debug!(sandbox = %id, error = &error as &dyn std::error::Error, "could not abandon a disk");
        }
    }

    /// Removes the disk of a sandbox, off the async threads.
    pub(super) async fn remove_upper(&self, id: SandboxId) -> Result<(), ApiError> {
        let uppers = Arc::clone(self.parts.roots.uppers());
        match tokio::task::spawn_blocking(move || uppers.remove(&id.to_string())).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ApiError::of(error.code(), &error)),
            Err(error) => Err(ApiError::of(ErrorCode::Internal, &error)),
        }
    }
}

/// Says of a sandbox, as long as it lives, that it may have a disk and no row yet.
struct Making<'a> {
    sandboxes: &'a Sandboxes,
    id: SandboxId,
}

impl<'a> Making<'a> {
    fn begin(sandboxes: &'a Sandboxes, id: SandboxId) -> Self {
        sandboxes.making.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        Self { sandboxes, id }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.sandboxes.making.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// The API's error for a failed call of the driver.
pub(super) fn runtime_error(error: &RuntimeError) -> ApiError {
    let code = match error {
        RuntimeError::Agent { .. } => ErrorCode::AgentUnavailable,
        RuntimeError::Driver { .. } => ErrorCode::DriverUnavailable,
        RuntimeError::Slot { source, .. } => {
            source.downcast_ref::<MetadataError>().map_or(ErrorCode::Internal, MetadataError::code)
        }
        _ => ErrorCode::Internal,
    };
    let api = ApiError::of(code, error);
    match code {
        ErrorCode::DriverUnavailable => {
            api.hint("`kiln doctor` lists the drivers and how to get those that are missing")
        }
        ErrorCode::CapacityExhausted => {
            api.hint("remove sandboxes that are no longer needed (`kiln rm`); stopped ones count")
        }
        _ => api,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_full_is_named() {
        for (source, code) in [
            (BoxError::from(MetadataError::NoSlot { count: 3 }), ErrorCode::CapacityExhausted),
            (BoxError::from("anything else"), ErrorCode::Internal),
        ] {
            let error = RuntimeError::Slot { id: SandboxId::new(), source };
            let problem = runtime_error(&error).problem;
            assert_eq!(problem.code, code);
            let full = code == ErrorCode::CapacityExhausted;
            assert_eq!(problem.detail.contains("all 3 sandbox slots are in use"), full);
            assert_eq!(problem.hint.is_some(), full);
        }
        assert_eq!(ErrorCode::CapacityExhausted.status(), 507);
    }
}
