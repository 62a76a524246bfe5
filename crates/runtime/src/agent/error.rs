//! What can go wrong between host and agent.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use kiln_protocol::{FileErrorKind, StartErrorKind};

/// What an agent, or the way to it, could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// No agent answered in time.
    #[error("no agent answered on {} within {after:?}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The time that was given.
        after: Duration,
        /// The last attempt's failure.
        #[source]
        source: io::Error,
    },
    /// Something answered, but not as an agent that this host can speak to.
    #[error("the agent on {} cannot be spoken to: {reason}", socket.display())]
    Handshake {
        /// The socket.
        socket: PathBuf,
        /// Why.
        reason: String,
    },
    /// The connection is gone. What was started through it may still run.
    #[error("the connection to the agent is lost: {reason}")]
    Lost {
        /// How it went.
        reason: Arc<str>,
    },
    /// The agent is connected but did not answer in time.
    #[error("the agent did not answer {operation} within {after:?}")]
    Unanswered {
        /// What it was asked.
        operation: &'static str,
        /// The time that was given.
        after: Duration,
    },
    /// A process did not start.
    #[error("could not start `{program}`: {message}")]
    Start {
        /// The first element of its argument vector.
        program: String,
        /// The cause, to tell apart.
        kind: StartErrorKind,
        /// The cause in words, with names and values.
        message: String,
    },
    /// A file operation failed.
    #[error("could not {operation} {path}: {message}")]
    File {
        /// The operation, as a verb.
        operation: &'static str,
        /// The path that was asked for.
        path: String,
        /// The cause, to tell apart.
        kind: FileErrorKind,
        /// The cause in words.
        message: String,
    },
    /// The agent refused a request, or answered it with something that is no answer.
    #[error("the agent did not do {operation}: {message}")]
    Request {
        /// What it was asked.
        operation: &'static str,
        /// Why not.
        message: String,
    },
    /// A request does not fit into one message.
    #[error("{what} has {size} bytes as a message, the limit is {limit}")]
    TooLarge {
        /// The request or answer.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The process has ended, so it takes no input, signal or size any more.
    #[error("the process has ended")]
    Ended,
}
