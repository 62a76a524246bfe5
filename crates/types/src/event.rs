//! What a build says while it runs. Events are numbered from 0; a log reader resumes by number.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::BuildStatus;
use crate::digest::Digest;
use crate::error::ErrorCode;

/// One numbered event of a build's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildEvent {
    /// Position in the log, from 0, without gaps. Also the SSE event id.
    pub seq: u64,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: BuildEventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BuildEventKind {
    /// A remark of the builder (which base source was taken, what was pulled, …).
    Info {
        /// The remark, one line.
        message: String,
    },
    /// A step begins, or is answered from the cache.
    StepStarted {
        /// From 1.
        step: u32,
        /// How many steps there are.
        total: u32,
        /// The step as its front end wrote it, one line.
        title: String,
        /// Whether the result was already there.
        cached: bool,
    },
    /// A piece of a step's output, as text (invalid UTF-8 replaced).
    Output {
        /// From 1.
        step: u32,
        /// Which of the two streams.
        stream: OutputStream,
        /// The piece; pieces need not end at line ends.
        text: String,
    },
    /// A step has ended well.
    StepFinished {
        /// From 1.
        step: u32,
        /// How long it took.
        duration_ms: u64,
        /// The size of the layer it made, in bytes; 0 for steps that change only the config.
        layer_size: u64,
    },
    /// The build has ended. Always the last event.
    Finished {
        /// `succeeded` or `failed`.
        status: BuildStatus,
        /// The image, when it succeeded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        image: Option<Digest>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<BuildFailure>,
    },
}

/// The code of failures that were written down without one.
fn build_failed() -> ErrorCode {
    ErrorCode::BuildFailed
}

/// One of a process's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a build failed: enough to act on without reading the whole log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildFailure {
    /// The stable code: `build_failed` when a step did not do its work, else that of the cause.
    #[serde(default = "build_failed")]
    pub code: ErrorCode,
    /// The failed step, from 1; absent when the build failed outside of a step (no base, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// The command that the step ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its exit code; 128 + n when signal n ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last lines of its output, oldest first.
    #[serde(default)]
    pub last_lines: Vec<String>,
    /// What went wrong, one sentence.
    pub message: String,
}
