//! What the daemon does at its start about the sandboxes of its earlier life.

use std::collections::HashSet;
use std::sync::Arc;

use kiln_metadata::SandboxRecord;
use kiln_types::SandboxId;
use kiln_types::api::SandboxStatus;

use super::create::runtime_error;
use super::{Live, ProcessDefaults, Sandboxes};
use crate::problem::ApiError;

const ROWS_AT_ONCE: u32 = 500;

impl Sandboxes {
    /// Adopts what still runs, writes down what has ended, finishes what was being removed, and
    /// removes disks and other leftovers that no row owns. Called once, before the first request.
    pub(crate) async fn reconcile(self: &Arc<Self>) -> Result<(), ApiError> {
        let mut owned = HashSet::new();
        let mut alive = Vec::new();
        for record in self.all_rows().await? {
            let id = record.id;
            match record.status {
                SandboxStatus::Removing => {
                    // Nothing depends on it; what fails now is tried again at the next start.
                    if let Err(error) = self.finish_removal(id).await {
                        tracing::error!(sandbox = %id, error = %error.problem, "could not finish a removal");
                        owned.insert(id.to_string());
                    }
                }
                SandboxStatus::Stopped => {
                    owned.insert(id.to_string());
                }
                SandboxStatus::Starting | SandboxStatus::Running => {
                    owned.insert(id.to_string());
                    if self.adopt(record).await? {
                        alive.push(id);
                    }
                }
            }
        }
        kiln_failpoint::pass("start.adopted");
        let adopted = alive.len();
        self.adopt_uppers(&alive).await?;
        self.parts.runtime.sweep(&alive).await.map_err(|error| runtime_error(&error))?;
        let removed = self.remove_unowned_uppers(owned).await?;
        kiln_failpoint::pass("start.reconciled");
        tracing::info!(adopted, removed_disks = removed, "reconciled");
        Ok(())
    }

    async fn all_rows(&self) -> Result<Vec<SandboxRecord>, ApiError> {
        let mut all: Vec<SandboxRecord> = Vec::new();
        loop {
            let cursor = all.last().map(|record| record.id);
            let rows = self.parts.metadata.list_sandboxes(cursor.as_ref(), ROWS_AT_ONCE).await?;
            let complete = rows.len() < ROWS_AT_ONCE as usize;
            all.extend(rows);
            if complete {
                return Ok(all);
            }
        }
    }

    /// Whether the sandbox still runs. One that cannot be looked at is taken for ended: its disk is
    /// kept, and it can be started again.
    async fn adopt(self: &Arc<Self>, mut record: SandboxRecord) -> Result<bool, ApiError> {
        let id = record.id;
        let reason = match self.adopt_running(&record).await {
            Ok(Some(live)) => {
                let address = live.address.map(|address| address.to_string());
                if record.status != SandboxStatus::Running || record.address != address {
                    record.status = SandboxStatus::Running;
                    record.address = address;
                    self.parts.metadata.update_sandbox(&record).await?;
                }
                self.attend(live);
                return Ok(true);
            }
            Ok(None) => "it ended while the daemon was not running".to_owned(),
            Err(error) => {
                tracing::error!(sandbox = %id, error = %error.problem, "could not adopt a sandbox");
                format!(
                    "it could not be found again after the daemon's start: {}",
                    error.problem.detail
                )
            }
        };
        self.mark_stopped(&mut record, Some(reason)).await?;
        Ok(false)
    }

    async fn adopt_running(&self, record: &SandboxRecord) -> Result<Option<Arc<Live>>, ApiError> {
        let image = self.parts.metadata.get_image(&record.image_digest).await?;
        let config = match image {
            Some(image) => self.parts.images.config(&image).await?,
            None => kiln_types::ImageConfig::default(),
        };
        let process = ProcessDefaults::new(&config, &record.env, self.parts.ca_bundle);
        let spec = self.spec(record, &process);
        let runtime = &self.parts.runtime;
        let running = runtime.adopt(spec.clone()).await.map_err(|error| runtime_error(&error))?;
        Ok(running.map(|running| Live::new(running, process, runtime, spec)))
    }

    /// Takes charge of the disks of what runs.
    async fn adopt_uppers(&self, alive: &[SandboxId]) -> Result<(), ApiError> {
        let uppers = Arc::clone(self.parts.roots.uppers());
        let ids: Vec<String> = alive.iter().map(SandboxId::to_string).collect();
        match tokio::task::spawn_blocking(move || uppers.adopt(&ids)).await {
            Ok(Ok(())) => {}
            // They work as they are; only the room that they take is not looked after.
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not adopt a disk");
            }
            Err(error) => return Err(ApiError::of(kiln_types::ErrorCode::Internal, &error)),
        }
        Ok(())
    }

    async fn remove_unowned_uppers(&self, owned: HashSet<String>) -> Result<usize, ApiError> {
        let uppers = Arc::clone(self.parts.roots.uppers());
        let lister = Arc::clone(&uppers);
        let listed = match tokio::task::spawn_blocking(move || lister.list()).await {
            Ok(listed) => listed.map_err(|error| ApiError::of(error.code(), &error))?,
            Err(error) => return Err(ApiError::of(kiln_types::ErrorCode::Internal, &error)),
        };
        let unowned: Vec<String> = listed.into_iter().filter(|id| !owned.contains(id)).collect();
        if !unowned.is_empty()
            && let Some(damage) = self.parts.metadata.verify().await?.damage.first()
        {
            // The rows of their owners may be among what is lost.
            tracing::error!(
                disks = unowned.len(),
                damage = format!("{}: {}", damage.subject, damage.problem),
                "the database is damaged: disks without sandboxes are kept; `kiln fsck` says more"
            );
            return Ok(0);
        }
        let task = tokio::task::spawn_blocking(move || {
            let mut removed = 0;
            for id in unowned {
                match uppers.remove(&id) {
                    Ok(_) => removed += 1,
                    Err(error) => {
                        tracing::error!(
                            upper = id,
                            error = &error as &dyn std::error::Error,
                            "could not remove a disk that nobody owns"
                        );
                    }
                }
            }
            Ok::<_, kiln_roots::RootsError>(removed)
        });
        match task.await {
            Ok(Ok(removed)) => Ok(removed),
            Ok(Err(error)) => Err(ApiError::of(error.code(), &error)),
            Err(error) => Err(ApiError::of(kiln_types::ErrorCode::Internal, &error)),
        }
    }
}
