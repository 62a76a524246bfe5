//! Stopping, starting and removing sandboxes, and noticing that one has ended by itself.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kiln_metadata::SandboxRecord;
use kiln_runtime::Exit;
use kiln_types::api::{SandboxInfo, SandboxStatus};
use kiln_types::{ErrorCode, SandboxId};

use super::create::runtime_error;
use super::{Live, Sandboxes, not_found, not_running};
use crate::problem::ApiError;

impl Sandboxes {
    /// Stops a sandbox; its disk is kept. Stopping a stopped one is no error.
    pub(crate) async fn stop(self: &Arc<Self>, sandbox: &str) -> Result<SandboxInfo, ApiError> {
        let id = self.find(sandbox).await?.id;
        let this = Arc::clone(self);
        self.detached(async move {
            let _lock = this.locks.lock(id).await;
            let mut record = this.row(id).await?;
            match record.status {
                SandboxStatus::Stopped => return Ok(this.info(record)),
                SandboxStatus::Removing => return Err(not_running(&record)),
                SandboxStatus::Starting | SandboxStatus::Running => {}
            }
            this.live_map().remove(&id);
            this.halt(id, this.parts.stop_grace).await?;
            kiln_failpoint::pass("sandbox.halted");
            this.rest_upper(id);
            this.mark_stopped(&mut record, None).await?;
            tracing::info!(sandbox = %id, "sandbox stopped");
            Ok(this.info(record))
        })
        .await
    }

    /// Starts a stopped sandbox on its disk. Starting a running one is no error.
    pub(crate) async fn start(self: &Arc<Self>, sandbox: &str) -> Result<SandboxInfo, ApiError> {
        let id = self.find(sandbox).await?.id;
        let this = Arc::clone(self);
        self.detached(async move {
            let _lock = this.locks.lock(id).await;
            let record = this.row(id).await?;
            match record.status {
                SandboxStatus::Running if this.live(id).is_some() => {
                    return Ok(this.info(record));
                }
                SandboxStatus::Removing => return Err(not_running(&record)),
                // The end of one that ran may not have been written down, on a full disk for instance.
                SandboxStatus::Running | SandboxStatus::Starting | SandboxStatus::Stopped => {}
            }
            this.starting.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            let result = this.start_now(record).await;
            this.starting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            result
        })
        .await
    }

    async fn start_now(
        self: &Arc<Self>,
        mut record: SandboxRecord,
    ) -> Result<SandboxInfo, ApiError> {
        let id = record.id;
        let metadata = &self.parts.metadata;
        let image = metadata.get_image(&record.image_digest).await?.ok_or_else(|| {
            ApiError::new(
                ErrorCode::StoreCorrupt,
                format!("the image {} of sandbox {id} is gone", record.image_digest),
            )
        })?;
        let live = match self.boot(&record, &image, false).await {
            Ok(live) => live,
            Err(error) => {
                self.rest_upper(id);
                return Err(error);
            }
        };
        kiln_failpoint::pass("sandbox.restarted");
        record.status = SandboxStatus::Running;
        record.reason = None;
        record.slot = Some(live.slot.0);
        record.address = live.address.map(|address| address.to_string());
        if let Err(error) = metadata.update_sandbox(&record).await {
            if let Err(error) = self.halt(id, Duration::ZERO).await {
                tracing::error!(sandbox = %id, error = %error.problem, "could not stop a sandbox whose row was not written");
            }
            self.rest_upper(id);
            return Err(error.into());
        }
        tracing::info!(sandbox = %id, "sandbox started");
        self.attend(live);
        Ok(self.info(record))
    }

    /// Removes a sandbox and its disk; a running one only with `force`.
    pub(crate) async fn remove(
        self: &Arc<Self>,
        sandbox: &str,
        force: bool,
    ) -> Result<(), ApiError> {
        let id = self.find(sandbox).await?.id;
        let this = Arc::clone(self);
        self.detached(async move {
            let _lock = this.locks.lock(id).await;
            let mut record = this.row(id).await?;
            let runs = matches!(record.status, SandboxStatus::Running | SandboxStatus::Starting);
            if runs && !force {
                return Err(ApiError::new(
                    ErrorCode::SandboxNotStopped,
                    format!("sandbox {id} is running"),
                )
                .hint(format!("stop it first (`kiln stop {id}`), or remove it by force (`kiln rm --force {id}`)")));
            }
            record.status = SandboxStatus::Removing;
            this.parts.metadata.update_sandbox(&record).await?;
            // Not before: a removal that could not even be begun has to leave a sandbox that works.
            this.live_map().remove(&id);
            this.finish_removal(id).await?;
            tracing::info!(sandbox = %id, "sandbox removed");
            Ok(())
        })
        .await
    }

    /// Removes everything of a sandbox whose row says `removing`, the row last.
    pub(super) async fn finish_removal(&self, id: SandboxId) -> Result<(), ApiError> {
        kiln_failpoint::pass("sandbox.doomed");
        self.abandon_upper(id).await;
        self.halt(id, Duration::ZERO).await?;
        kiln_failpoint::pass("sandbox.ended");
        self.remove_upper(id).await?;
        kiln_failpoint::pass("sandbox.disk-removed");
        self.parts.metadata.remove_sandbox(&id).await?;
        kiln_failpoint::pass("sandbox.unrecorded");
        Ok(())
    }

    /// Takes a sandbox that runs into the map, and waits for its end.
    pub(super) fn attend(self: &Arc<Self>, live: Arc<Live>) {
        self.live_map().insert(live.id, Arc::clone(&live));
        let this = Arc::clone(self);
        // Not tracked by `tasks`: it lasts as long as the sandbox, the daemon does not wait for it.
        tokio::spawn(async move {
            let mut exit = live.exit.clone();
            let ended = match exit.wait_for(Option::is_some).await {
                Ok(exit) => exit.clone(),
                Err(_) => None,
            };
            let Some(ended) = ended else { return };
            let change = Arc::clone(&this);
            let task = this.tasks.spawn(async move { change.ended(&live, &ended).await });
            if let Ok(Err(error)) = task.await {
                tracing::error!(error = %error.problem, "could not write down that a sandbox has ended");
            }
        });
    }

    /// Writes down that a sandbox has ended by itself, unless somebody ended it on purpose.
    async fn ended(&self, live: &Arc<Live>, exit: &Exit) -> Result<(), ApiError> {
        let id = live.id;
        let _lock = self.locks.lock(id).await;
        {
            let mut map = self.live_map();
            if !map.get(&id).is_some_and(|known| Arc::ptr_eq(known, live)) {
                return Ok(());
            }
            map.remove(&id);
        }
        let reason = ended_because(exit);
        tracing::warn!(sandbox = %id, reason, "sandbox has ended by itself");
        self.halt(id, Duration::ZERO).await?;
        self.rest_upper(id);
        if let Some(mut record) = self.parts.metadata.get_sandbox(&id).await? {
            self.mark_stopped(&mut record, Some(reason)).await?;
        }
        Ok(())
    }

    pub(super) async fn mark_stopped(
        &self,
        record: &mut SandboxRecord,
        reason: Option<String>,
    ) -> Result<(), ApiError> {
        record.status = SandboxStatus::Stopped;
        record.address = None;
        record.reason = reason;
        Ok(self.parts.metadata.update_sandbox(record).await?)
    }

    async fn halt(&self, id: SandboxId, grace: Duration) -> Result<(), ApiError> {
        self.parts.runtime.stop(id, grace).await.map_err(|error| runtime_error(&error))
    }

    /// The row of a sandbox whose lock is held.
    pub(super) async fn row(&self, id: SandboxId) -> Result<SandboxRecord, ApiError> {
        let record = self.parts.metadata.get_sandbox(&id).await?;
        record.ok_or_else(|| not_found(&id.to_string()))
    }
}

fn ended_because(exit: &Exit) -> String {
    if exit.out_of_memory && !exit.reason.contains("out of memory") {
        format!("out of memory: {}", exit.reason)
    } else {
        exit.reason.to_string()
    }
}
