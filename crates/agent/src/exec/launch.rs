//! Starting a program: pipes or a terminal, fork, and the child's report.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use kiln_protocol::{ExecRequest, StartErrorKind};
use rustix::fs::{Gid, Uid, fchown};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitStatus, getgid, getgroups, getuid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::failure::{StartError, explain};
use super::program::Program;
use super::terminal;
use crate::agent::Agent;
use crate::sys::{self, Launch, Report, Stdio, read_report};
use crate::users::{Database, Identity};

/// The agent's end of a pipe or terminal.
pub(crate) type Descriptor = Rc<AsyncFd<OwnedFd>>;

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) input: Input,
    pub(crate) output: Output,
    pub(crate) exit: oneshot::Receiver<WaitStatus>,
}

/// Where input of the host goes.
#[derive(Debug)]
pub(crate) enum Input {
    /// Closed at the end of input.
    Pipe(Descriptor),
    /// Stays open; has a character for the end of input.
    Terminal(Descriptor),
}

/// Where output comes from.
#[derive(Debug)]
pub(crate) enum Output {
    Pipes { stdout: Descriptor, stderr: Descriptor },
    Terminal(Descriptor),
}

/// The program's ends; dropped in the agent as soon as the child has them.
enum ChildEnds {
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

/// Starts a program and waits until it runs.
pub(crate) async fn start(agent: &Agent, request: ExecRequest) -> Result<Started, StartError> {
    let user = request.user.clone().unwrap_or_else(|| "root".to_owned());
    let identity = Database::read(Path::new("/"))
        .resolve(request.user.as_deref())
        .map_err(|error| StartError::new(error.kind(), error.to_string()))?;
    let program = Program::new(&request, &identity)?;
    let cwd = request.cwd.as_ref().map_or(b"/".as_slice(), |cwd| cwd.as_bytes());
    let cwd = CString::new(cwd).map_err(|_| {
        StartError::new(StartErrorKind::InvalidArgument, "the working directory has a NUL byte")
    })?;
    if !cwd.as_bytes().starts_with(b"/") {
        let message = format!("working directory `{}` is not absolute", cwd.to_string_lossy());
        return Err(StartError::new(StartErrorKind::InvalidArgument, message));
    }

    let (input, output, ends) = open_io(&request, &identity)?;
    let launched = Launch {
        candidates: program.candidates.clone(),
        argv: program.argv.clone(),
        env: program.env.clone(),
        cwd: &cwd,
        ids: ids_to_take(&identity),
        stdio: ends.as_stdio(),
        limit: agent.limit,
    }
    .start()
    .map_err(|error| StartError::system("start a process", &error))?;
    let exit = agent.reaper.watch(launched.pid);
    drop(ends);
    match wait_for_exec(launched.report).await {
        Ok(None) => Ok(Started { pid: launched.pid, input, output, exit }),
        Ok(Some(report)) => {
            let cwd = Path::new(std::ffi::OsStr::from_bytes(cwd.as_bytes()));
            Err(explain(&report, &program, cwd, &user))
        }
        Err(error) => Err(StartError::system("follow the start of a process", &error)),
    }
}

impl ChildEnds {
    fn as_stdio(&self) -> Stdio<'_> {
        match self {
            Self::Pipes { stdin, stdout, stderr } => Stdio::Pipes {
                stdin: stdin.as_fd(),
                stdout: stdout.as_fd(),
                stderr: stderr.as_fd(),
            },
            Self::Terminal(slave) => Stdio::Terminal(slave.as_fd()),
        }
    }
}

fn open_io(
    request: &ExecRequest,
    identity: &Identity,
) -> Result<(Input, Output, ChildEnds), StartError> {
    if let Some(size) = request.pty {
        let (master, slave) = terminal::open(size, identity.uid).map_err(|error| {
            StartError::new(
                StartErrorKind::NoTerminal,
                format!("could not open a terminal: {error}"),
            )
        })?;
        let master = register(master, Interest::READABLE | Interest::WRITABLE)?;
        let input = Input::Terminal(Rc::clone(&master));
        return Ok((input, Output::Terminal(master), ChildEnds::Terminal(slave)));
    }
    let pipe = || {
        pipe_with(PipeFlags::CLOEXEC)
            .map_err(|error| StartError::system("open a pipe", &error.into()))
    };
    let ((stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr)) =
        (pipe()?, pipe()?, pipe()?);
    // A program that opens `/dev/stdout` opens the pipe anew, and may do so only if it owns it. An agent
    // that may not give things away runs programs as itself, and then they own it already.
    for end in [&stdin, &stdout, &stderr] {
        let _ = fchown(end, Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid)));
    }
    let input = Input::Pipe(register(to_stdin, Interest::WRITABLE)?);
    let output = Output::Pipes {
        stdout: register(from_stdout, Interest::READABLE)?,
        stderr: register(from_stderr, Interest::READABLE)?,
    };
    Ok((input, output, ChildEnds::Pipes { stdin, stdout, stderr }))
}

fn register(descriptor: OwnedFd, interest: Interest) -> Result<Descriptor, StartError> {
    let registered = sys::register(descriptor, interest).map(Rc::new);
    registered.map_err(|error| StartError::system("follow a pipe", &error))
}

/// What the child has to become; `None` when the agent is just that, so that an agent without the
/// right to change ids still runs programs as itself.
fn ids_to_take(identity: &Identity) -> Option<(u32, u32, Vec<u32>)> {
    let ids = (getuid().as_raw(), getgid().as_raw());
    let groups = getgroups().unwrap_or_default();
    let has = |gid: &u32| groups.iter().any(|group| group.as_raw() == *gid) || ids.1 == *gid;
    let same = ids == (identity.uid, identity.gid)
        && identity.groups.iter().all(has)
        && groups.iter().all(|group| identity.groups.contains(&group.as_raw()));
    (!same).then(|| (identity.uid, identity.gid, identity.groups.clone()))
}

/// Waits until the child runs its program (the report ends empty) or said why not.
async fn wait_for_exec(report: OwnedFd) -> io::Result<Option<Report>> {
    let report = sys::register(report, Interest::READABLE)?;
    let mut bytes = [0; 8];
    loop {
        let mut ready = report.readable().await?;
        match ready.try_io(|report| Ok(rustix::io::read(report.get_ref(), &mut bytes)?)) {
            Ok(Ok(size)) => return Ok(read_report(&bytes[..size])),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}
