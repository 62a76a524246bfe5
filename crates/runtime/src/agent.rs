//! The host end of the guest agent.
//!
//! One connection carries everything: processes, terminals, files, shutdown. [`Agent`] is a cheap
//! handle on it; the connection closes when the last handle and the last thing opened through it are
//! dropped. The agent does not care: processes run on, a later connection finds the same sandbox.
//!
//! What the agent says is not trusted: sizes and counts are bounded by the protocol, and anything
//! outside of it ends the connection with [`AgentError::Lost`].

mod connect;
mod error;
mod exec;
mod files;
mod link;
mod stream;

pub mod binary;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use kiln_protocol::Request;
use tokio::io::{AsyncRead, AsyncWrite};

pub use error::{AgentError, FileErrorKind, StartErrorKind};
pub use exec::{
    Exec, ExecChunk, ExecControl, ExecInput, ExecOutput, ExecOutputStream, ExecSpec, ExitStatus,
};
pub use files::{FileInfo, FileReader, FileWriter};

use link::Link;

/// How long an agent may take to answer a ping.
const PING_DEADLINE: Duration = Duration::from_secs(5);
/// How long an agent may take to flush the sandbox's disks.
const SYNC_DEADLINE: Duration = Duration::from_mins(2);

/// A link to the agent of one sandbox. Clones share one connection.
#[derive(Clone, Debug)]
pub struct Agent {
    link: Link,
}

impl Agent {
    /// Connects to the agent that listens on `socket`, retrying until one answers or `deadline` is
    /// over. The path may be longer than a socket address can hold, its last component may not.
    ///
    /// Fails at once when something answers that is no agent or speaks no common version.
    pub async fn connect(socket: &Path, deadline: Duration) -> Result<Self, AgentError> {
        Ok(Self { link: connect::connect(socket, deadline).await? })
    }

    /// Speaks to an agent over a byte stream that is already there.
    pub async fn over<S>(stream: S, deadline: Duration) -> Result<Self, AgentError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (read, write) = tokio::io::split(stream);
        let attempt = connect::handshake(read, write);
        match tokio::time::timeout(deadline, attempt).await {
            Ok(Ok(link)) => Ok(Self { link }),
            Ok(Err(failed)) => Err(failed.into_error(Path::new("(stream)"))),
            Err(_) => Err(AgentError::Unanswered { operation: "the hello", after: deadline }),
        }
    }

    /// Asks whether the agent answers; fails after five seconds.
    pub async fn ping(&self) -> Result<(), AgentError> {
        match tokio::time::timeout(PING_DEADLINE, self.link.ping()).await {
            Ok(result) => result,
            Err(_) => Err(AgentError::Unanswered { operation: "a ping", after: PING_DEADLINE }),
        }
    }

    /// Whether the connection is known to be gone. `false` is no promise; see [`Self::ping`].
    pub fn is_lost(&self) -> bool {
        self.link.lost_reason().is_some()
    }

    /// Starts a process. Returns when it runs, or with [`AgentError::Start`] when it does not.
    /// Dropping the future before that kills it; afterwards see [`Exec`].
    pub async fn exec(&self, spec: ExecSpec) -> Result<Exec, AgentError> {
        exec::start(&self.link, spec).await
    }

    /// Runs a process to its end with `stdin` as its input, and keeps up to `limit_per_stream` bytes
    /// of each output. Dropping the future kills the process.
    pub async fn run(
        &self,
        spec: ExecSpec,
        stdin: Bytes,
        limit_per_stream: usize,
    ) -> Result<ExecOutput, AgentError> {
        exec::run(&self.link, spec, stdin, limit_per_stream).await
    }

    /// Opens a regular file for reading. A relative `path` starts at `cwd`, here and below.
    pub async fn read_file(
        &self,
        cwd: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<FileReader, AgentError> {
        files::read(&self.link, cwd.as_ref(), path.as_ref()).await
    }

    /// Starts to replace or make a file. Nothing is visible under its name before
    /// [`FileWriter::finish`]; parents are made. `mode` absent: that of the old file, or 0644.
    pub async fn write_file(
        &self,
        cwd: impl AsRef<Path>,
        path: impl AsRef<Path>,
        mode: Option<u32>,
    ) -> Result<FileWriter, AgentError> {
        files::write(&self.link, cwd.as_ref(), path.as_ref(), mode).await
    }

    /// The entries of a directory, by name.
    pub async fn list(
        &self,
        cwd: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<Vec<FileInfo>, AgentError> {
        files::list(&self.link, cwd.as_ref(), path.as_ref()).await
    }

    /// Describes a file; a symbolic link is not followed.
    pub async fn stat(
        &self,
        cwd: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<FileInfo, AgentError> {
        files::stat(&self.link, cwd.as_ref(), path.as_ref()).await
    }

    /// Makes a directory and its parents; fine when it is there. `mode` (0755 when absent) is for a
    /// directory that is made.
    pub async fn mkdir(
        &self,
        cwd: impl AsRef<Path>,
        path: impl AsRef<Path>,
        mode: Option<u32>,
    ) -> Result<(), AgentError> {
        files::mkdir(&self.link, cwd.as_ref(), path.as_ref(), mode).await
    }

    /// Removes a file, a symbolic link itself, or a directory (with all in it when `recursive`).
    pub async fn remove(
        &self,
        cwd: impl AsRef<Path>,
        path: impl AsRef<Path>,
        recursive: bool,
    ) -> Result<(), AgentError> {
        files::remove(&self.link, cwd.as_ref(), path.as_ref(), recursive).await
    }

    /// Writes everything dirty in the sandbox to its disks.
    pub async fn sync(&self) -> Result<(), AgentError> {
        self.simple("sync", Request::Sync {}, SYNC_DEADLINE).await
    }

    /// Ends everything in the sandbox: SIGTERM to all, SIGKILL after `grace`, sync, and the agent
    /// itself ends. Returns when the agent says so or its connection is gone.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), AgentError> {
        let request = Request::Shutdown { grace_ms: exec::millis(grace) };
        match self.simple("shutdown", request, grace + SYNC_DEADLINE).await {
            Err(AgentError::Lost { .. }) => Ok(()),
            other => other,
        }
    }

    async fn simple(
        &self,
        operation: &'static str,
        request: Request,
        deadline: Duration,
    ) -> Result<(), AgentError> {
        let mut stream = self.link.open(request)?;
        let finished = stream.finish(operation, deadline).await;
        finished.map_err(|end| end.into_request_error(operation))
    }
}
