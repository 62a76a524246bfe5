//! Processes in the sandbox.

use std::time::Duration;

use bytes::Bytes;
use kiln_protocol::{Channel, Control, ExecRequest, Failure, PtySize, Reply, Request};
use tokio::time::Instant;

use super::error::AgentError;
use super::link::Link;
use super::stream::{Event, PATIENCE, Sender, Stream, StreamEnd};

/// A process to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments. A program without a slash is searched in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The complete environment. The agent adds `HOME`, `USER` and `LOGNAME` of the guest's user
    /// data base when absent, and `TERM=xterm` on a terminal.
    pub env: Vec<(String, String)>,
    /// Working directory, `/` when absent; it must be there.
    pub cwd: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid` of the guest; the superuser when absent.
    pub user: Option<String>,
    /// Run on a terminal of this many rows and columns. All output is then standard output.
    pub pty: Option<(u16, u16)>,
    /// Kill the process, its group and its descendants after this time.
    pub timeout: Option<Duration>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// The exit code; 128 + n when signal n ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the time-out ended it.
    pub timed_out: bool,
}

impl ExitStatus {
    /// Whether the process ended by itself with code 0.
    pub fn success(&self) -> bool {
        self.code == 0 && !self.timed_out
    }
}

/// What a process left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// The beginning of its standard output.
    pub stdout: Vec<u8>,
    /// The beginning of its standard error.
    pub stderr: Vec<u8>,
    /// Whether one of them was longer.
    pub truncated: bool,
}

/// A piece of a process's output, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecChunk {
    /// Bytes of standard output, or of the terminal.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The process has ended; nothing follows.
    Exit(ExitStatus),
}

/// A running process.
///
/// It outlives this value: dropping [`ExecOutputStream`] drops its output, dropping [`ExecInput`]
/// ends its input, and only [`ExecControl::kill`] or a signal ends it.
#[derive(Debug)]
pub struct Exec {
    pid: u32,
    input: ExecInput,
    output: ExecOutputStream,
    control: ExecControl,
}

impl Exec {
    /// Its process id inside the sandbox.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its parts, to be used from different tasks.
    pub fn into_parts(self) -> (ExecInput, ExecOutputStream, ExecControl) {
        (self.input, self.output, self.control)
    }
}

/// The input of a process.
#[derive(Debug)]
pub struct ExecInput {
    sender: Sender,
    open: bool,
}

impl ExecInput {
    /// Sends bytes; waits while the process does not read. Bytes that a process does not want (it
    /// closed its input) are dropped without an error; [`AgentError::Ended`] after its end.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), AgentError> {
        self.sender.data(bytes).await
    }

    /// Ends the input. A terminal in line mode gets its end-of-file character.
    pub fn close(mut self) -> Result<(), AgentError> {
        self.open = false;
        self.sender.end()
    }
}

impl Drop for ExecInput {
    fn drop(&mut self) {
        if self.open {
            let _an_ended_process_needs_no_end = self.sender.end();
        }
    }
}

/// The output of a process.
#[derive(Debug)]
pub struct ExecOutputStream {
    stream: Stream,
    ended: bool,
    /// When the agent must have ended a process with a time-out, and how long that is from its start.
    limit: Option<(Instant, Duration)>,
}

impl ExecOutputStream {
    /// The next piece. [`ExecChunk::Exit`] or an error is the last one, then `None`.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<ExecChunk, AgentError>> {
        if self.ended {
            return None;
        }
        let event = match self.limit {
            Some((end, after)) => match tokio::time::timeout_at(end, self.stream.next()).await {
                Ok(event) => event,
                Err(_) => Err(StreamEnd::Lost(AgentError::Unanswered { operation: "exec", after })),
            },
            None => self.stream.next().await,
        };
        let chunk = match event {
            Ok(Event::Data(Channel::Error, bytes)) => Ok(ExecChunk::Stderr(bytes)),
            Ok(Event::Data(_, bytes)) => Ok(ExecChunk::Stdout(bytes)),
            Ok(Event::Reply(Reply::Exited { code, signal, timed_out })) => {
                Ok(ExecChunk::Exit(ExitStatus { code, signal, timed_out }))
            }
            Ok(Event::Reply(Reply::Failed { failure })) => {
                Err(StreamEnd::Failed(failure).into_request_error("exec"))
            }
            Ok(Event::Reply(_)) => {
                Err(StreamEnd::Unexpected("it answered something else").into_request_error("exec"))
            }
            Err(end) => Err(end.into_request_error("exec")),
        };
        self.ended = !matches!(chunk, Ok(ExecChunk::Stdout(_) | ExecChunk::Stderr(_)));
        Some(chunk)
    }
}

/// Steers a process. All calls return when the message is queued; [`AgentError::Ended`] after the
/// end of the process.
#[derive(Clone, Debug)]
pub struct ExecControl {
    sender: Sender,
}

impl ExecControl {
    /// Gives the terminal a new size.
    pub fn resize(&self, rows: u16, cols: u16) -> Result<(), AgentError> {
        self.sender.control(Control::Resize(PtySize { rows, cols }))
    }

    /// Sends a signal to the process group.
    pub fn signal(&self, signal: i32) -> Result<(), AgentError> {
        self.sender.control(Control::Signal { signal })
    }

    /// Kills the process, its group and its descendants.
    pub fn kill(&self) -> Result<(), AgentError> {
        self.sender.control(Control::Kill {})
    }
}

/// Kills a process that nobody has a handle on: its future was dropped.
#[derive(Debug)]
struct KillOnDrop(Option<Sender>);

impl KillOnDrop {
    fn new(sender: &Sender) -> Self {
        Self(Some(sender.clone()))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(sender) = &self.0 {
            let _ended_or_lost = sender.control(Control::Kill {});
        }
    }
}

/// A duration in whole milliseconds, rounded up.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

pub(super) async fn start(link: &Link, spec: ExecSpec) -> Result<Exec, AgentError> {
    let program = spec.argv.first().cloned().unwrap_or_default();
    // The agent is not trusted to keep the time.
    let limit = spec.timeout.and_then(|timeout| {
        let after = timeout.checked_add(PATIENCE)?;
        Some((Instant::now().checked_add(after)?, after))
    });
    let request = ExecRequest {
        argv: spec.argv.into_iter().map(Into::into).collect(),
        env: spec.env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        cwd: spec.cwd.map(Into::into),
        user: spec.user,
        pty: spec.pty.map(|(rows, cols)| PtySize { rows, cols }),
        timeout_ms: spec.timeout.map(millis),
    };
    let mut stream = link.open(Request::Exec(Box::new(request)))?;
    let unclaimed = KillOnDrop::new(stream.sender());
    let started = stream.answer("exec").await;
    let pid = match started {
        Ok(Event::Reply(Reply::Started { pid })) => pid,
        Ok(Event::Reply(Reply::Failed { failure: Failure::Start { kind, message } })) => {
            return Err(AgentError::Start { program, kind, message });
        }
        Ok(Event::Reply(Reply::Failed { failure })) => {
            return Err(StreamEnd::Failed(failure).into_request_error("exec"));
        }
        Ok(_) => {
            return Err(
                StreamEnd::Unexpected("it answered something else").into_request_error("exec")
            );
        }
        Err(end) => return Err(end.into_request_error("exec")),
    };
    unclaimed.disarm();
    let sender = stream.sender().clone();
    Ok(Exec {
        pid,
        input: ExecInput { sender: sender.clone(), open: true },
        output: ExecOutputStream { stream, ended: false, limit },
        control: ExecControl { sender },
    })
}

pub(super) async fn run(
    link: &Link,
    spec: ExecSpec,
    stdin: Bytes,
    limit: usize,
) -> Result<ExecOutput, AgentError> {
    let (mut input, mut output, control) = start(link, spec).await?.into_parts();
    let unfinished = KillOnDrop::new(&control.sender);
    let feed = async move {
        // A process need not read its input; a lost connection shows in its output.
        if input.write(stdin).await.is_ok() {
            let _ended_meanwhile = input.close();
        }
    };
    let collect = async move {
        let (mut stdout, mut stderr, mut truncated) = (Vec::new(), Vec::new(), false);
        while let Some(chunk) = output.next().await {
            match chunk? {
                ExecChunk::Stdout(bytes) => truncated |= keep(&mut stdout, &bytes, limit),
                ExecChunk::Stderr(bytes) => truncated |= keep(&mut stderr, &bytes, limit),
                ExecChunk::Exit(status) => {
                    return Ok(ExecOutput { status, stdout, stderr, truncated });
                }
            }
        }
        Err(link.lost())
    };
    let ((), result) = tokio::join!(feed, collect);
    unfinished.disarm();
    result
}

/// Appends what fits below `limit`; says whether something did not.
fn keep(kept: &mut Vec<u8>, bytes: &[u8], limit: usize) -> bool {
    let room = limit.saturating_sub(kept.len()).min(bytes.len());
    kept.extend_from_slice(&bytes[..room]);
    room < bytes.len()
}
