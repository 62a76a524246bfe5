//! Commands in a running sandbox. None of this waits for a change of the sandbox's state.

use std::sync::Arc;

use kiln_runtime::agent::{
    AgentError, ExecChunk, ExecControl, ExecInput, ExecOutputStream, ExitStatus,
};
use kiln_types::ErrorCode;
use kiln_types::api::ExecRequest;

use super::{Live, Sandboxes, agent_error};
use crate::problem::ApiError;

/// A command that runs. Dropped before its end, it is killed with all that it started.
#[derive(Debug)]
pub(crate) struct Process {
    live: Arc<Live>,
    output: ExecOutputStream,
    end: ProcessEnd,
    input: Option<ExecInput>,
}

/// Steers a command, and kills it when dropped before the command's end.
#[derive(Debug)]
pub(crate) struct ProcessEnd {
    control: ExecControl,
    ended: bool,
}

impl Drop for ProcessEnd {
    fn drop(&mut self) {
        if !self.ended {
            let _it_has_ended_by_itself = self.control.kill();
        }
    }
}

impl Sandboxes {
    /// Starts a command.
    pub(crate) async fn exec(
        &self,
        sandbox: &str,
        request: &ExecRequest,
    ) -> Result<Process, ApiError> {
        let live = self.running_sandbox(sandbox).await?;
        let spec = live.process.spec(request)?;
        let exec = live.agent().await.exec(spec).await;
        let exec = exec.map_err(|error| agent_error(&live, &error))?;
        let (input, output, control) = exec.into_parts();
        Ok(Process { live, output, end: ProcessEnd { control, ended: false }, input: Some(input) })
    }
}

impl Process {
    /// Its input; `None` once it was taken.
    pub(crate) fn take_input(&mut self) -> Option<ExecInput> {
        self.input.take()
    }

    /// Sends `text` as the whole input, beside whatever else happens.
    pub(crate) fn feed(&mut self, text: Option<String>) {
        let Some(mut input) = self.input.take() else { return };
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            let _an_ended_process_needs_no_end = input.close();
            return;
        };
        // Ends with the process at the latest: its end makes the write fail.
        tokio::spawn(async move {
            if input.write(text.into()).await.is_ok() {
                let _an_ended_process_needs_no_end = input.close();
            }
        });
    }

    /// A handle to send signals and sizes with.
    pub(crate) fn control(&self) -> ExecControl {
        self.end.control.clone()
    }

    /// The next piece of output. [`ExecChunk::Exit`] or an error is the last one.
    pub(crate) async fn next(&mut self) -> Result<ExecChunk, ApiError> {
        let chunk = match self.output.next().await {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => {
                self.end.ended = matches!(error, AgentError::Ended);
                return Err(self.lost(&error).await);
            }
            None => {
                return Err(ApiError::new(
                    ErrorCode::AgentUnavailable,
                    "the command's output has ended without its exit status",
                ));
            }
        };
        self.end.ended |= matches!(chunk, ExecChunk::Exit(_));
        Ok(chunk)
    }

    /// Runs to the end and keeps up to `limit` bytes of each output.
    pub(crate) async fn collect(mut self, limit: usize) -> Result<Collected, ApiError> {
        let (mut stdout, mut stderr, mut truncated) = (Vec::new(), Vec::new(), false);
        loop {
            let (kept, bytes) = match self.next().await? {
                ExecChunk::Stdout(bytes) => (&mut stdout, bytes),
                ExecChunk::Stderr(bytes) => (&mut stderr, bytes),
                ExecChunk::Exit(status) => {
                    return Ok(Collected { status, stdout, stderr, truncated });
                }
            };
            let room = limit.saturating_sub(kept.len()).min(bytes.len());
            kept.extend_from_slice(&bytes[..room]);
            truncated |= room < bytes.len();
        }
    }

    /// Why the link to the command broke. When the sandbox itself has ended, its reason is worth the
    /// moment that the kernel takes to tell it.
    async fn lost(&self, error: &AgentError) -> ApiError {
        const MOMENT: std::time::Duration = std::time::Duration::from_millis(500);
        if matches!(error, AgentError::Lost { .. }) {
            let mut exit = self.live.exit.clone();
            let _still_running = tokio::time::timeout(MOMENT, exit.wait_for(Option::is_some)).await;
        }
        agent_error(&self.live, error)
    }
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) truncated: bool,
}
