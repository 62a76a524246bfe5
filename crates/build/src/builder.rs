//! The builder: builds as jobs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{FutureExt as _, Stream};
use jiff::Timestamp;
use kiln_images::ImageStore;
use kiln_metadata::{BuildRecord, ImageRecord};
use kiln_registry::RegistryClient;
use kiln_roots::Roots;
use kiln_runtime::Runtime;
use kiln_types::api::BuildStatus;
use kiln_types::event::{BuildEvent, BuildFailure};
use kiln_types::{Base, BuildId, SandboxId, StepKey};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bases::{BaseError, BaseKey, clean_up};
use crate::error::{BuildError, chain};
use crate::flight::Flights;
use crate::log::{Logs, follow};
use crate::plan::{BuildPlan, BuilderConfig};
use crate::solve::finished;
use crate::step::{Executed, StepFailure, UPPER_PREFIX};

/// Builds images. All builds of a daemon go through one of these.
#[derive(Debug)]
pub struct Builder {
    pub(crate) config: BuilderConfig,
    pub(crate) store: Arc<ImageStore>,
    pub(crate) roots: Arc<Roots>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) registry: RegistryClient,
    /// By key and memory limit: with more memory, a step may not fail.
    pub(crate) steps: Flights<(StepKey, u64), Result<Executed, StepFailure>>,
    pub(crate) bases: Flights<BaseKey, Result<ImageRecord, Arc<BaseError>>>,
    pub(crate) permits: Semaphore,
    pub(crate) cancel: CancellationToken,
    /// Builds whose end could not be written down: by their rows, they still run.
    unrecorded: Arc<Mutex<HashMap<BuildId, BuildRecord>>>,
    logs: Logs,
    tasks: TaskTracker,
}

impl Builder {
    /// A builder with these means.
    pub fn new(
        config: BuilderConfig,
        store: Arc<ImageStore>,
        roots: Arc<Roots>,
        runtime: Arc<dyn Runtime>,
        registry: RegistryClient,
    ) -> Arc<Self> {
        let logs = Logs::new(config.data_dir.join("builds"), config.log_limit);
        let permits = Semaphore::new(config.parallel_steps.max(1));
        Arc::new(Self {
            config,
            store,
            roots,
            runtime,
            registry,
            steps: Flights::default(),
            bases: Flights::default(),
            permits,
            cancel: CancellationToken::new(),
            unrecorded: Arc::default(),
            logs,
            tasks: TaskTracker::new(),
        })
    }

    /// Starts a build and answers at once. The build goes on whether or not anybody waits for it.
    pub async fn start(self: &Arc<Self>, plan: BuildPlan) -> Result<BuildRecord, BuildError> {
        if self.cancel.is_cancelled() {
            return Err(BuildError::ShuttingDown);
        }
        let id = BuildId::new();
        let record = BuildRecord {
            id,
            status: BuildStatus::Running,
            name: plan.name.as_ref().map(ToString::to_string),
            definition: plan.definition.clone(),
            definition_key: None,
            image: None,
            steps_cached: 0,
            failure: None,
            created_at: Timestamp::now(),
            finished_at: None,
        };
        let log = self.logs.create(id)?;
        kiln_failpoint::pass("build.log-made");
        if let Err(source) = self.store.metadata().put_build(&record).await {
            drop(log);
            self.logs.remove(id);
            return Err(BuildError::Metadata { action: "record", id, source });
        }
        let (builder, job) = (Arc::clone(self), record.clone());
        self.tasks.spawn(async move { builder.run(job, plan, log).await });
        Ok(record)
    }

    /// Waits until a build has ended.
    pub async fn wait(&self, id: &BuildId) -> Result<BuildRecord, BuildError> {
        if let Some(mut progress) = self.logs.progress(*id) {
            // A writer that is gone has ended its log.
            let _ = progress.wait_for(|found| found.ended).await;
        }
        self.get(id).await
    }

    /// Keeps in memory how a build ended, which the database did not take.
    pub(crate) fn unrecorded(&self, record: BuildRecord) {
        let mut unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        unrecorded.insert(record.id, record);
    }

    /// What is known of a build beyond its row: how it ended, if the database did not take that.
    pub fn known(&self, row: BuildRecord) -> BuildRecord {
        let unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        unrecorded.get(&row.id).cloned().unwrap_or(row)
    }

    /// A build.
    pub async fn get(&self, id: &BuildId) -> Result<BuildRecord, BuildError> {
        if let Some(ended) =
            self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
        {
            return Ok(ended);
        }
        let found = self.store.metadata().get_build(id).await;
        found
            .map_err(|source| BuildError::Metadata { action: "look up", id: *id, source })?
            .ok_or(BuildError::NotFound { id: *id })
    }

    /// The events of a build from number `from` on: those of the past at once, further ones as they
    /// come, up to `finished`. A reader may be as slow as it likes.
    pub async fn log(
        &self,
        id: &BuildId,
        from: u64,
    ) -> Result<impl Stream<Item = BuildEvent> + Send + 'static + use<>, BuildError> {
        self.get(id).await?;
        let (metadata, id) = (Arc::clone(self.store.metadata()), *id);
        let unrecorded = Arc::clone(&self.unrecorded);
        // A log that was cut off (a full disk) gets its end from the row.
        let last = async move {
            let ended = {
                let unrecorded = unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
                unrecorded.get(&id).map(finished)
            };
            if ended.is_some() {
                return ended;
            }
            let record = metadata.get_build(&id).await.ok().flatten()?;
            (record.status != BuildStatus::Running).then(|| finished(&record))
        };
        Ok(follow(self.logs.path(id), self.logs.progress(id), from, last.boxed()))
    }

    /// The image that a catalog name means, which is obtained if need be; `None` if the catalog does
    /// not have the name.
    ///
    /// What was begun goes on when the caller does not wait for it.
    pub async fn resolve_catalog(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Option<ImageRecord>, BuildError> {
        if !self.config.catalog.contains_key(name) {
            return Ok(None);
        }
        let (builder, name) = (Arc::clone(self), name.to_owned());
        let work = self.tasks.spawn(async move {
            let say = |message: String| tracing::info!(name, "{message}");
            builder.resolve_until_shutdown(&Base::Catalog(name.clone()), false, &say).await
        });
        match work.await {
            Ok(Some(Ok(image))) => Ok(Some(image)),
            Ok(Some(Err(source))) => Err(BuildError::Base { source }),
            Ok(None) => Err(BuildError::ShuttingDown),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(BuildError::ShuttingDown),
            },
        }
    }

    /// Ends the builds that an earlier life of the daemon left running, and removes what they left.
    /// Called once, before the first build.
    pub async fn recover(&self) -> Result<(), BuildError> {
        let metadata = self.store.metadata();
        let failed = |action: &'static str| {
            move |source: kiln_metadata::MetadataError| BuildError::Recover {
                action,
                source: source.into(),
            }
        };
        let running =
            metadata.list_running_builds().await.map_err(failed("list the running builds"))?;
        for mut record in running {
            let id = record.id;
            tracing::warn!(build = %id, "the build was cut off by the end of the daemon");
            record.status = BuildStatus::Failed;
            record.finished_at = Some(Timestamp::now());
            record.failure = Some(BuildFailure {
                code: kiln_types::ErrorCode::BuildFailed,
                step: None,
                command: None,
                exit_code: None,
                last_lines: Vec::new(),
                message: "the daemon ended while the build ran; start the build again, finished steps are kept".to_owned(),
            });
            metadata.put_build(&record).await.map_err(failed("end a build"))?;
            if let Err(error) = self.logs.finish(id, finished(&record)) {
                tracing::warn!(build = %id, %error, "the log of the build was not ended");
            }
        }
        let uppers = Arc::clone(self.roots.uppers());
        let recover = |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Recover {
            action: "remove the disk of a step",
            source,
        };
        for upper in uppers.list().map_err(|error| recover(error.into()))? {
            let Some(sandbox) = upper.strip_prefix(UPPER_PREFIX) else { continue };
            if let Ok(sandbox) = sandbox.parse::<SandboxId>() {
                let stopped = self.runtime.stop(sandbox, std::time::Duration::ZERO).await;
                stopped.map_err(|error| recover(error.into()))?;
            }
            let uppers = Arc::clone(&uppers);
            let removed = tokio::task::spawn_blocking(move || uppers.remove(&upper)).await;
            removed
                .map_err(|error| recover(error.into()))?
                .map_err(|error| recover(error.into()))?;
        }
        self.remove_logs_without_rows();
        kiln_failpoint::pass("start.builds-ended");
        clean_up();
        match self.store.sweep().await {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, "removed what a crash left in the store"),
            // It takes up room, but stands in nobody's way.
            Err(error) => {
                tracing::warn!(error = chain(&error), "what a crash left in the store stays");
            }
        }
        Ok(())
    }

    /// A log is made before its row, and removed after it. What cannot be removed stands in nobody's way.
    /// Not waited for: there may be many, and all that are found here are older than the next build.
    fn remove_logs_without_rows(&self) {
        let logs = match self.logs.list() {
            Ok(logs) => logs,
            Err(error) => {
                return tracing::warn!(%error, "the logs of builds cannot be listed");
            }
        };
        let (metadata, dir) = (Arc::clone(self.store.metadata()), self.logs.clone());
        self.tasks.spawn(async move {
            for id in logs {
                match metadata.get_build(&id).await {
                    Ok(None) => {
                        tracing::info!(build = %id, "removing the log of a build that has no row");
                        dir.remove(id);
                    }
                    Ok(Some(_)) => {}
                    Err(error) => {
                        tracing::warn!(build = %id, error = chain(&error), "cannot tell whether there is such a build");
                    }
                }
            }
        });
    }

    /// Takes no more builds, ends those that run (they fail and say why), and waits for that.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
