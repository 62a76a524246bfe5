//! A step in its sandbox: made, used for this step alone, and gone before the step has ended.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_images::LayerHold;
use kiln_metadata::LayerRecord;
use kiln_roots::{LayerSource, UpperLimits};
use kiln_runtime::agent::{AgentError, ExecChunk, ExecSpec, StartErrorKind};
use kiln_runtime::{BoxError, Limits, Running, SandboxSpec, Userns};
use kiln_types::event::{BuildEventKind, OutputStream};
use kiln_types::{DiffId, ErrorCode, ImageConfig, SandboxId, Step};

use super::{Command, Work, directory, environment, work};
use crate::builder::Builder;
use crate::error::{chain, code_of};
use crate::log::{Decoder, LogWriter, Tail};
use crate::snapshot::{SealedLayer, seal};

/// How much longer than its command a step may take to be begun and ended by the agent.
const SLACK: Duration = Duration::from_mins(1);
/// How long the processes of a step may take to end when it is over.
const GRACE: Duration = Duration::from_secs(10);
/// A disk with fewer free bytes than this counts as full.
const FULL: u64 = 64 << 10;
/// The prefix of the uppers of steps; the id of their sandbox follows.
pub(crate) const UPPER_PREFIX: &str = "build-";

/// The result of a step that was done.
#[derive(Clone, Debug)]
pub(crate) struct Executed {
    /// The layer; `None` when nothing was changed on disk.
    pub(crate) layer: Option<LayerRecord>,
    /// What keeps the layer until an image needs it.
    pub(crate) hold: Option<Arc<LayerHold>>,
    /// Whether it was there already after all.
    pub(crate) cached: bool,
}

/// Why a step failed, with all that a build says about it.
#[derive(Clone, Debug)]
pub(crate) struct StepFailure {
    pub(crate) code: ErrorCode,
    pub(crate) command: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) last_lines: Vec<String>,
    pub(crate) message: String,
}

impl StepFailure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        let (code, message) = (ErrorCode::BuildFailed, message.into());
        Self { code, command: None, exit_code: None, last_lines: Vec::new(), message }
    }

    pub(crate) fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { code: code_of(error), ..Self::new(chain(error)) }
    }
}

/// What a step stands on and may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limited<'a> {
    /// Layers below, base first.
    pub(crate) layers: &'a [DiffId],
    /// The image's config before the step.
    pub(crate) config: &'a ImageConfig,
    /// Limits of its sandbox.
    pub(crate) limits: Limits,
}

impl Builder {
    /// Does `step` and makes its layer. Whatever happens, sandbox, upper and slot are released.
    pub(crate) async fn execute(
        &self,
        step: &Step,
        number: u32,
        on: Limited<'_>,
        log: &LogWriter,
    ) -> Result<Option<SealedLayer>, StepFailure> {
        let work = match work(step, on.config) {
            Work::Nothing => return Ok(None),
            work => work,
        };
        let permit = tokio::select! {
            permit = self.permits.acquire() => permit.map_err(|_| shutting_down())?,
            () = self.cancel.cancelled() => return Err(shutting_down()),
        };
        let sandbox = SandboxId::new();
        let upper = format!("{UPPER_PREFIX}{sandbox}");
        let disk = self.config.disk;
        self.uppers(&upper, move |uppers, id| uppers.create(id, disk)).await?;
        kiln_failpoint::pass("step.disk-made");
        let result = self.execute_in(sandbox, &upper, &work, number, on, log).await;
        kiln_failpoint::pass("step.done");
        if let Err(error) = self.uppers(&upper, |uppers, id| uppers.remove(id).map(drop)).await {
            tracing::error!(
                upper,
                error = error.message,
                "the disk of a step could not be removed"
            );
        }
        drop(permit);
        result
    }

    async fn uppers(
        &self,
        upper: &str,
        work: impl FnOnce(&dyn kiln_roots::UpperStore, &str) -> Result<(), kiln_roots::RootsError>
        + Send
        + 'static,
    ) -> Result<(), StepFailure> {
        let (uppers, upper) = (Arc::clone(self.roots.uppers()), upper.to_owned());
        match tokio::task::spawn_blocking(move || work(&*uppers, &upper)).await {
            Ok(result) => result.map_err(|error| StepFailure::of(&error)),
            Err(error) => Err(StepFailure::of(&error)),
        }
    }

    async fn execute_in(
        &self,
        sandbox: SandboxId,
        upper: &str,
        work: &Work,
        number: u32,
        on: Limited<'_>,
        log: &LogWriter,
    ) -> Result<Option<SealedLayer>, StepFailure> {
        let mountable =
            self.store.prove_layers(on.layers).await.map_err(|error| StepFailure::of(&error))?;
        let sources: Vec<LayerSource> = mountable
            .into_iter()
            .map(|layer| LayerSource { index: layer.index, devices: layer.devices })
            .collect();
        let (roots, id) = (Arc::clone(&self.roots), upper.to_owned());
        let root = move |userns: Userns<'_>| {
            // Nothing of a step that is cut off is ever used, so nothing needs to be synced.
            roots
                .mount(&sources, &id, userns.fd, userns.base, true)
                .map_err(|error| Box::new(error) as BoxError)
        };
        let spec = SandboxSpec {
            id: sandbox,
            hostname: "build".to_owned(),
            env: environment(on.config, &self.config.step_env, &[]),
            limits: on.limits,
            slot: None,
            network: true,
            driver: None,
        };
        let running = self
            .runtime
            .create(spec, Box::new(root))
            .await
            .map_err(|error| short_of_disk(&self.config.data_dir, StepFailure::of(&error)))?;
        let limit = self.config.step_timeout + SLACK;
        let driven = tokio::time::timeout(limit, self.drive(&running, work, number, on, log));
        let done = tokio::select! {
            done = driven => done.unwrap_or_else(|_| {
                let limit = limit.as_secs();
                Err(StepFailure::new(format!("the step did not end within {limit} s")))
            }),
            () = self.cancel.cancelled() => Err(shutting_down()),
        };
        let done = done.map_err(|failure| short_of_disk(&self.config.data_dir, failure));
        let bounded = self.roots.uppers().bounded().then_some(self.config.disk);
        let done = done.map_err(|failure| short_of_own_disk(bounded, failure));
        let stopped = self.runtime.stop(sandbox, GRACE).await;
        if let Err(error) = self.store.metadata().release_slot(running.slot.0).await {
            tracing::warn!(slot = running.slot.0, error = chain(&error), "a slot was not released");
        }
        done.map_err(|failure| short_of_memory(&running, on.limits, failure))?;
        stopped.map_err(|error| StepFailure::of(&error))?;
        kiln_failpoint::pass("step.ran");
        let sealed = seal(&self.store, &self.roots, upper, on.layers, Vec::new())
            .await
            .map_err(|error| StepFailure::of(&error))?;
        if sealed.skipped_sockets > 0 {
            log.info(format!(
                "{} sockets were left out of the layer: a layer cannot hold them",
                sealed.skipped_sockets
            ));
        }
        Ok(sealed.layer)
    }

    async fn drive(
        &self,
        running: &Running,
        work: &Work,
        number: u32,
        on: Limited<'_>,
        log: &LogWriter,
    ) -> Result<(), StepFailure> {
        let agent = &running.agent;
        let result = match work {
            Work::Nothing => Ok(()),
            Work::Command(command) => {
                return self.run_command(running, command, number, on, log).await;
            }
            Work::Directory { path } => agent.mkdir("/", path, None).await,
            Work::File { path, content, mode } => {
                async {
                    let mut file = agent.write_file("/", path, Some(*mode)).await?;
                    file.write(Bytes::copy_from_slice(content)).await?;
                    file.finish().await
                }
                .await
            }
        };
        result.map_err(|error| lost(running, &error))
    }

    async fn run_command(
        &self,
        running: &Running,
        command: &Command,
        number: u32,
        on: Limited<'_>,
        log: &LogWriter,
    ) -> Result<(), StepFailure> {
        let failed = |mut failure: StepFailure| {
            if let Some(hint) = command.hint(failure.exit_code, &failure.last_lines) {
                failure.message = format!("{}; {hint}", failure.message);
            }
            StepFailure { command: Some(command.shown.clone()), ..failure }
        };
        let spec = ExecSpec {
            argv: command.argv.clone(),
            env: environment(on.config, &self.config.step_env, &command.env),
            cwd: Some(directory(on.config).to_owned()),
            user: command.user.clone(),
            pty: None,
            timeout: Some(self.config.step_timeout),
        };
        if let Some(directory) = &on.config.workdir {
            // An image may name a directory that it does not have.
            let made = running.agent.mkdir("/", directory, None).await;
            made.map_err(|error| failed(lost(running, &error)))?;
        }
        let exec = running.agent.exec(spec).await.map_err(|error| {
            let mut failure = lost(running, &error);
            if let (AgentError::Start { kind: StartErrorKind::NotFound, .. }, Some(needs)) =
                (&error, command.needs)
            {
                failure.message = format!("{}; {needs}", failure.message);
            }
            failed(failure)
        })?;
        let (input, mut output, _control) = exec.into_parts();
        // A step has no input; one that asks for some is told so by the end of it.
        if let Err(error) = input.close() {
            tracing::debug!(error = chain(&error), "the command ended before its input");
        }
        let mut tail = Tail::default();
        let mut decoders = [Decoder::default(), Decoder::default()];
        let mut say = |stream: OutputStream, text: String| {
            if !text.is_empty() {
                tail.push(&text);
                log.write(BuildEventKind::Output { step: number, stream, text });
            }
        };
        let ended = loop {
            match output.next().await {
                Some(Ok(ExecChunk::Stdout(bytes))) => {
                    say(OutputStream::Stdout, decoders[0].push(&bytes));
                }
                Some(Ok(ExecChunk::Stderr(bytes))) => {
                    say(OutputStream::Stderr, decoders[1].push(&bytes));
                }
                Some(Ok(ExecChunk::Exit(status))) => break Ok(status),
                Some(Err(error)) => break Err(lost(running, &error)),
                None => {
                    break Err(StepFailure::new(
                        "the output of the command ended without its exit code",
                    ));
                }
            }
        };
        say(OutputStream::Stdout, decoders[0].finish());
        say(OutputStream::Stderr, decoders[1].finish());
        let failure = match ended {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => {
                let message = if status.timed_out {
                    let limit = self.config.step_timeout.as_secs();
                    format!("the command took longer than {limit} s and was killed")
                } else if let Some(signal) = status.signal {
                    format!("the command was ended by signal {signal}")
                } else {
                    format!("the command ended with exit code {}", status.code)
                };
                StepFailure { exit_code: Some(status.code), ..StepFailure::new(message) }
            }
            Err(failure) => failure,
        };
        Err(failed(StepFailure { last_lines: tail.finish(), ..failure }))
    }
}

/// A command may well see a full disk as something else: overlayfs answers with an I/O error.
fn short_of_disk(data_dir: &Path, failure: StepFailure) -> StepFailure {
    let is_full = |found: rustix::fs::StatVfs| {
        let least = UpperLimits::least_free(found.f_blocks * found.f_frsize);
        found.f_bavail * found.f_frsize < least.max(FULL)
    };
    if rustix::fs::statvfs(data_dir).is_ok_and(is_full) {
        let message = format!(
            "{}; the disk is full: the file system of {} has hardly any room left",
            failure.message,
            data_dir.display()
        );
        return StepFailure { code: ErrorCode::StorageFull, message, ..failure };
    }
    failure
}

/// Programs say that there is no room; that it is the step's own disk which has none, they cannot.
fn short_of_own_disk(disk: Option<UpperLimits>, failure: StepFailure) -> StepFailure {
    let said = failure.last_lines.iter().any(|line| line.contains("No space left on device"));
    let Some(disk) = disk.filter(|_| said && failure.code != ErrorCode::StorageFull) else {
        return failure;
    };
    let message = format!(
        "{}; the disk of a step has {} MiB (`build_disk_mib` in the daemon's configuration), one file for each 16 KiB",
        failure.message,
        disk.bytes >> 20
    );
    StepFailure { message, ..failure }
}

/// A command whose process the kernel killed cannot say why it failed.
fn short_of_memory(running: &Running, limits: Limits, failure: StepFailure) -> StepFailure {
    let killed = running.exit.borrow().as_ref().is_some_and(|exit| exit.out_of_memory);
    if !killed || failure.message.contains("memory") {
        return failure;
    }
    let message = format!(
        "{}; the kernel killed a process of the step, which may use {} MiB of memory",
        failure.message,
        limits.memory >> 20
    );
    StepFailure { message, ..failure }
}

fn shutting_down() -> StepFailure {
    StepFailure::new("the daemon was shut down")
}

/// A failed call of the agent; when the sandbox has ended, that is what matters.
fn lost(running: &Running, error: &AgentError) -> StepFailure {
    if let AgentError::Lost { .. } | AgentError::Unanswered { .. } = error
        && let Some(exit) = &*running.exit.borrow()
    {
        let cause = if exit.out_of_memory { " (it ran out of memory)" } else { "" };
        return StepFailure::new(format!("the build sandbox ended{cause}: {}", exit.reason));
    }
    StepFailure::of(error)
}
