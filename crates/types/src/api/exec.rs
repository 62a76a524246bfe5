//! Running commands in a sandbox.
//!
//! `POST …/exec` runs to the end and answers [`ExecResult`], or, asked with
//! `Accept: text/event-stream`, a stream of [`ExecEvent`]. `GET …/exec/stream` upgrades to a WebSocket:
//! the client sends [`ExecClientMessage::Start`] as its first text message; then binary messages carry
//! one channel byte and bytes, text messages carry the other messages of both sides.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// First byte of a binary message with bytes for standard input.
pub const EXEC_CHANNEL_STDIN: u8 = 0;
/// First byte of a binary message with bytes of standard output (or of the terminal).
pub const EXEC_CHANNEL_STDOUT: u8 = 1;
/// First byte of a binary message with bytes of standard error.
pub const EXEC_CHANNEL_STDERR: u8 = 2;

/// A command to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Program and arguments. The program is searched in the `PATH` that the process gets.
    pub argv: Vec<String>,
    /// Added to the sandbox's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; the image's, or `/workspace`, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; the image's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Standard input as text (`POST` only); empty when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Kill the whole process group after this many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Run on a terminal of this size (WebSocket only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pty: Option<PtySize>,
    /// Accept bare shell operators (`&&`, `|`, `;`, `>`, …) as argv elements.
    #[serde(default)]
    pub literal: bool,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PtySize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// How a command ended, with its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecResult {
    /// The exit code; 128 + n when signal n ended the process.
    pub exit_code: i32,
    /// The signal that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the time-out ended it.
    #[serde(default)]
    pub timed_out: bool,
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, invalid UTF-8 replaced.
    pub stderr: String,
    /// Whether output above the limit of 16 MiB a stream was dropped.
    #[serde(default)]
    pub truncated: bool,
}

/// One event of a streamed `POST …/exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecEvent {
    /// Output bytes in standard base64.
    Stdout {
        /// The bytes.
        data_base64: String,
    },
    /// Error output bytes in standard base64.
    Stderr {
        /// The bytes.
        data_base64: String,
    },
    /// The end. Always the last event, unless it is `error`.
    Exit {
        /// The exit code; 128 + n when signal n ended the process.
        exit_code: i32,
        /// The signal that ended it, if one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// Whether the time-out ended it.
        #[serde(default)]
        timed_out: bool,
    },
    /// The command was lost: the sandbox ended or its agent failed.
    Error {
        /// What happened.
        problem: crate::error::Problem,
    },
}

/// A text message of the client on the WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ExecClientMessage {
    /// Must be the first message.
    Start {
        /// What to run.
        request: ExecRequest,
    },
    /// Standard input has ended.
    StdinEof,
    /// The terminal has a new size.
    Resize {
        /// Rows and columns.
        size: PtySize,
    },
    /// Send a signal to the process group.
    Signal {
        /// Its number.
        signal: i32,
    },
}

/// A text message of the server on the WebSocket. After it the server closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecServerMessage {
    /// The process has ended and all its output was sent.
    Exit {
        /// The exit code; 128 + n when signal n ended the process.
        exit_code: i32,
        /// The signal that ended it, if one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// Whether the time-out ended it.
        #[serde(default)]
        timed_out: bool,
    },
    /// The command did not start, or was lost.
    Error {
        /// What happened.
        problem: crate::error::Problem,
    },
}
