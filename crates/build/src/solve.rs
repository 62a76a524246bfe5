//! One build, from its definition to its image.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use jiff::Timestamp;
use kiln_images::{LayerHold, MAX_LAYERS, NewImage};
use kiln_metadata::{BuildRecord, ImageRecord, StepRecord, TemplateDefaults};
use kiln_runtime::Limits;
use kiln_types::api::BuildStatus;
use kiln_types::event::{BuildEventKind, BuildFailure};
use kiln_types::{ChainId, DiffId, Digest, ErrorCode, ImageConfig, ImageDefinition, Step, StepKey};

use crate::builder::Builder;
use crate::cache::{config_after, keys, longest_prefix};
use crate::error::{chain, code_of};
use crate::log::LogWriter;
use crate::plan::BuildPlan;
use crate::ready::make_ready;
use crate::step::{Executed, Limited, StepFailure, configure, title};

/// How often the end of a build is tried to be recorded, and the pause in between.
const RECORD_ATTEMPTS: u32 = 5;
/// How often a base is resolved that goes before it is held.
const RESOLVE_ATTEMPTS: u32 = 3;
const RECORD_PAUSE: Duration = Duration::from_secs(1);

impl Builder {
    /// Does a build and writes down how it ended: in its row first, then in its log.
    pub(crate) async fn run(&self, mut record: BuildRecord, plan: BuildPlan, log: LogWriter) {
        let job = Job { builder: self, plan: &plan, log: &log };
        let result = AssertUnwindSafe(job.run(&mut record)).catch_unwind().await;
        let result = result.unwrap_or_else(|_| {
            let message = "the builder itself failed; the daemon's log says more".to_owned();
            Err(outside(ErrorCode::Internal, message))
        });
        record.finished_at = Some(Timestamp::now());
        kiln_failpoint::pass("build.ended");
        match result {
            Ok(image) => {
                record.status = BuildStatus::Succeeded;
                record.image = Some(image);
            }
            Err(failure) => {
                record.status = BuildStatus::Failed;
                record.failure = Some(failure);
            }
        }
        let mut attempts = 1;
        while let Err(error) = self.store.metadata().put_build(&record).await {
            tracing::error!(build = %record.id, error = chain(&error), "the end of a build is not recorded");
            // A disk that was full may have room again.
            let pause = tokio::time::sleep(RECORD_PAUSE);
            if attempts == RECORD_ATTEMPTS || self.cancel.run_until_cancelled(pause).await.is_none()
            {
                self.unrecorded(record.clone());
                break;
            }
            attempts += 1;
        }
        log.write(finished(&record));
    }
}

/// The last event of a build that ended as `record` says.
pub(crate) fn finished(record: &BuildRecord) -> BuildEventKind {
    BuildEventKind::Finished {
        status: record.status,
        image: record.image,
        failure: record.failure.clone(),
    }
}

struct Job<'a> {
    builder: &'a Builder,
    plan: &'a BuildPlan,
    log: &'a LogWriter,
}

/// The base of a build.
struct Ground {
    image: ImageRecord,
    config: ImageConfig,
    /// Keeps its layers.
    _hold: LayerHold,
}

impl Job<'_> {
    async fn run(&self, record: &mut BuildRecord) -> Result<Digest, BuildFailure> {
        let definition = &self.plan.definition;
        let base = self.ground(definition).await?;
        let chain = ChainId::of(&base.image.layers);
        let key = definition.key(chain.as_ref(), &base.config);
        record.definition_key = Some(key);
        if !self.plan.no_cache
            && let Some(image) = self.built_before(&key).await?
        {
            record.steps_cached = definition.steps.len() as u32;
            return Ok(image.digest);
        }
        if base.image.layers.len() + definition.steps.len() > MAX_LAYERS {
            return Err(outside(
                ErrorCode::InvalidDefinition,
                format!(
                    "the base has {} layers, so that {} steps could make more than the {MAX_LAYERS} that an image may have; join steps",
                    base.image.layers.len(),
                    definition.steps.len()
                ),
            ));
        }
        self.build(record, &base, key).await
    }

    async fn ground(&self, definition: &ImageDefinition) -> Result<Ground, BuildFailure> {
        let say = |message: String| self.log.info(message);
        let store = &self.builder.store;
        let mut attempts = 0;
        let (image, hold) = loop {
            let image = self
                .builder
                .resolve_until_shutdown(&definition.base, self.plan.pull, &say)
                .await
                .ok_or_else(|| {
                    outside(ErrorCode::BuildFailed, "the daemon was shut down".to_owned())
                })?
                .map_err(|error| caused_by(&*error))?;
            let hold = store.hold(&image.layers).await;
            let still = store.metadata().get_image(&image.digest).await;
            attempts += 1;
            // Nothing has kept it before it was held: it may have been collected.
            if still.map_err(|error| caused_by(&error))?.is_some() || attempts == RESOLVE_ATTEMPTS {
                break (image, hold);
            }
        };
        let config = store.config(&image).await.map_err(|error| caused_by(&error))?;
        Ok(Ground { image, config, _hold: hold })
    }

    /// The image that this very definition made before, if it is still whole.
    async fn built_before(&self, key: &Digest) -> Result<Option<ImageRecord>, BuildFailure> {
        let store = &self.builder.store;
        let failed = |error: &(dyn std::error::Error + 'static)| caused_by(error);
        let found = store.metadata().find_image_by_definition(key).await;
        let Some(image) = found.map_err(|error| failed(&error))? else {
            return Ok(None);
        };
        let _hold = store.hold(&image.layers).await;
        if let Err(error) = store.prove_layers(&image.layers).await {
            self.log.info(format!("the image of an earlier build is not whole: {}", chain(&error)));
            return Ok(None);
        }
        // It may have been removed before its layers were held.
        let still =
            store.metadata().get_image(&image.digest).await.map_err(|error| failed(&error))?;
        let Some(image) = still else { return Ok(None) };
        let steps = &self.plan.definition.steps;
        for (number, step) in steps.iter().enumerate() {
            self.started(number, step, true);
        }
        if let Some(name) = &self.plan.name {
            let put = store.put_template(name, &image.digest, self.plan.defaults).await;
            put.map_err(|error| failed(&error))?;
        }
        Ok(Some(image))
    }

    async fn build(
        &self,
        record: &mut BuildRecord,
        base: &Ground,
        definition_key: Digest,
    ) -> Result<Digest, BuildFailure> {
        let store = &self.builder.store;
        let steps = &self.plan.definition.steps;
        let keys = keys(&base.image.layers, &base.config, steps);
        let usable = if self.plan.no_cache { &[][..] } else { &keys[..] };
        let prefix = longest_prefix(store, &base.image.layers, usable)
            .await
            .map_err(|error| caused_by(&error))?;
        if prefix.damaged > 0 {
            self.log.info(format!(
                "the results of {} steps are recorded but not whole; they are done again",
                prefix.damaged
            ));
        }
        let mut layers = base.image.layers.clone();
        let mut created_by = vec!["base".to_owned(); layers.len()];
        for (number, (step, layer)) in steps.iter().zip(&prefix.steps).enumerate() {
            self.started(number, step, true);
            created_by.extend(layer.map(|_| title(step)));
            layers.extend(*layer);
        }
        record.steps_cached = prefix.steps.len() as u32;
        let mut config = config_after(&base.config, &steps[..prefix.steps.len()]);
        let mut holds = Vec::new();
        for (number, step) in steps.iter().enumerate().skip(prefix.steps.len()) {
            let done = self
                .step(number, step, &keys[number], &layers, &config)
                .await
                .map_err(|failure| of_step(number, failure))?;
            record.steps_cached += u32::from(done.cached);
            if let Some(layer) = done.layer {
                layers.push(layer.diff_id);
                created_by.push(title(step));
            }
            holds.extend(done.hold);
            configure(step, &mut config);
        }
        let image = store
            .commit_image(NewImage {
                config,
                layers,
                name: self.plan.name.clone(),
                definition_key: Some(definition_key),
                defaults: self.plan.defaults,
                created_by,
            })
            .await
            .map_err(|error| caused_by(&error))?;
        make_ready(store, &self.builder.roots, &image.layers).await;
        drop((prefix.hold, holds));
        Ok(image.digest)
    }

    /// Does a step, or waits for the build that is doing it.
    async fn step(
        &self,
        number: usize,
        step: &Step,
        key: &StepKey,
        layers: &[DiffId],
        config: &ImageConfig,
    ) -> Result<Executed, StepFailure> {
        let started = Instant::now();
        let limits = limits(self.builder.config.limits, &self.plan.defaults);
        let on = Limited { layers, config, limits };
        let result = if self.plan.no_cache {
            self.perform(number, step, key, on).await
        } else {
            let waiting = || {
                self.log.info(format!(
                    "step {}: another build is doing the same step; waiting for it",
                    number + 1
                ));
            };
            let work = || self.perform(number, step, key, on);
            let (result, led) = self.builder.steps.run(&(*key, limits.memory), waiting, work).await;
            match result {
                Ok(done) if !led => {
                    self.started(number, step, true);
                    Ok(Executed { cached: true, ..done })
                }
                other => other,
            }
        };
        let done = result?;
        if !done.cached {
            self.log.write(BuildEventKind::StepFinished {
                step: number as u32 + 1,
                duration_ms: started.elapsed().as_millis() as u64,
                layer_size: done.layer.map_or(0, |layer| layer.size),
            });
        }
        Ok(done)
    }

    async fn perform(
        &self,
        number: usize,
        step: &Step,
        key: &StepKey,
        on: Limited<'_>,
    ) -> Result<Executed, StepFailure> {
        if !self.plan.no_cache
            && let Some(done) = self.done_meanwhile(key, on.layers).await?
        {
            self.started(number, step, true);
            return Ok(done);
        }
        self.started(number, step, false);
        let sealed = self.builder.execute(step, number as u32 + 1, on, self.log).await?;
        let (layer, hold) = match sealed {
            Some(sealed) => (Some(sealed.record), Some(Arc::new(sealed.hold))),
            None => (None, None),
        };
        let row = StepRecord { key: *key, layer: layer.map(|layer| layer.diff_id) };
        let put = self.builder.store.metadata().put_step(&row).await;
        put.map_err(|error| StepFailure::of(&error))?;
        kiln_failpoint::pass("step.recorded");
        Ok(Executed { layer, hold, cached: false })
    }

    /// The result of a step that another build has finished since this one looked into the cache.
    async fn done_meanwhile(
        &self,
        key: &StepKey,
        layers: &[DiffId],
    ) -> Result<Option<Executed>, StepFailure> {
        let store = &self.builder.store;
        let failed = |error: kiln_metadata::MetadataError| StepFailure::of(&error);
        let Some(row) = store.metadata().get_step(key).await.map_err(failed)? else {
            return Ok(None);
        };
        let Some(diff_id) = row.layer else {
            return Ok(Some(Executed { layer: None, hold: None, cached: true }));
        };
        let hold = Some(Arc::new(store.hold(&[diff_id]).await));
        let Some(layer) = store.metadata().get_layer(&diff_id).await.map_err(failed)? else {
            return Ok(None);
        };
        let all: Vec<DiffId> = layers.iter().copied().chain([diff_id]).collect();
        match store.prove_layers(&all).await {
            Ok(_) => Ok(Some(Executed { layer: Some(layer), hold, cached: true })),
            Err(_) => Ok(None),
        }
    }

    fn started(&self, number: usize, step: &Step, cached: bool) {
        self.log.write(BuildEventKind::StepStarted {
            step: number as u32 + 1,
            total: self.plan.definition.steps.len() as u32,
            title: title(step),
            cached,
        });
    }
}

/// A template's own memory limit counts when it is above that of steps.
fn limits(usual: Limits, defaults: &TemplateDefaults) -> Limits {
    let memory = defaults.memory_mib.map_or(0, |mib| u64::from(mib) << 20);
    Limits { memory: usual.memory.max(memory), ..usual }
}

/// A failure outside of any step.
fn outside(code: ErrorCode, message: String) -> BuildFailure {
    let (step, command, exit_code) = (None, None, None);
    BuildFailure { code, step, command, exit_code, last_lines: Vec::new(), message }
}

/// A failure outside of any step that an error explains.
fn caused_by(error: &(dyn std::error::Error + 'static)) -> BuildFailure {
    outside(code_of(error), chain(error))
}

fn of_step(number: usize, failure: StepFailure) -> BuildFailure {
    let StepFailure { code, command, exit_code, last_lines, message } = failure;
    BuildFailure { code, step: Some(number as u32 + 1), command, exit_code, last_lines, message }
}
