//! The launcher: a small process of one thread that makes sandboxes for the daemon.
//!
//! A process with threads cannot enter a user namespace, and a copy of a large process is slow to make.
//! So the daemon, before it has any thread, leaves a copy of itself behind that does nothing else. The
//! work is split in two: first a process is *parked*, with all that is slow to make (a user namespace, a
//! network namespace, `/dev`, `/sys`); later it is *launched*, and a sandbox begins.
//!
//! Each parked process speaks to the daemon over a socket of its own. When the daemon ends, however it
//! ends, these sockets and the launcher's close, and all of these processes end; sandboxes run on.

mod again;
mod channel;
mod devices;
mod init;
mod kernel_files;
mod message;
mod mounts;
mod namespaces;
mod parked;
mod privileges;
mod skeleton;
mod step;
mod tree;
mod zygote;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use again::launcher_main;
pub(crate) use init::TERMINALS;
pub(crate) use kernel_files::{PROC_HIDDEN, PROC_READ_ONLY};
pub(crate) use message::Launch;
pub(crate) use privileges::{KEPT, OPEN_FILES, STACK};
pub(crate) use tree::{AGENT, AGENT_SOURCE, CA_BUNDLE, LINK};

use again::{Current, Place};
use step::Failure;

use channel::Channel;
use message::{Order, Report, Task};

/// How long the launcher may take to come up.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long the launcher may take to copy a file.
const KEEP_DEADLINE: Duration = Duration::from_secs(10);
/// How long a process may take to be parked.
const PARK_DEADLINE: Duration = Duration::from_secs(30);
/// How long the start of a sandbox may take, from the request to the exec of its agent.
const LAUNCH_DEADLINE: Duration = Duration::from_secs(30);

/// What went wrong with the launcher.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LauncherError {
    /// A step failed in the launcher or one of its children.
    #[error("could not {step}")]
    Step {
        /// The step, as an infinitive.
        step: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The process that should answer is gone. When it is the launcher itself, the next call starts
    /// another one ([`Launcher::replaceable`]); sandboxes that run are not affected.
    #[error("{process} ended before it had done what was asked of it")]
    Gone {
        /// Which process.
        process: &'static str,
    },
    /// The link to the process failed.
    #[error("no word could be exchanged with {process}")]
    Link {
        /// Which process.
        process: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Something other than what was asked for was answered.
    #[error("{process} gave an answer to something else: {answer}")]
    Confused {
        /// Which process.
        process: &'static str,
        /// The answer.
        answer: String,
    },
}

impl From<Failure> for LauncherError {
    fn from(failure: Failure) -> Self {
        let source = failure.source();
        Self::Step { step: failure.step, source }
    }
}

/// The daemon's handle on its launcher. The launcher ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Launcher {
    place: Arc<Place>,
    /// How many files were given to be kept.
    kept: Arc<AtomicU32>,
}

impl Launcher {
    /// Starts the launcher. Call this first thing in `main`: the launcher is a copy of the calling
    /// process, with only the calling thread in it.
    ///
    /// Fails where sandboxes cannot be made at all, as for want of privileges.
    pub fn start() -> Result<Self, LauncherError> {
        let link = |source| LauncherError::Link { process: zygote::NAME, source };
        let (ours, theirs) = Channel::pair().map_err(link)?;
        let fork = crate::sys::fork(|| zygote::run(&theirs));
        drop(theirs);
        let pid = fork
            .map_err(|source| LauncherError::Step { step: "fork the launcher".into(), source })?;
        let deadline = Instant::now() + START_DEADLINE;
        match expect_report(&ours, zygote::NAME, deadline)? {
            Some((Report::Ready, _)) => Ok(Self {
                place: Arc::new(Place::new(Current::new(ours, pid, 0))),
                kept: Arc::default(),
            }),
            other => Err(unexpected(zygote::NAME, other)),
        }
    }

    /// Has a launcher that dies replaced by this very program, executed with `arguments`: with these it
    /// has to call [`launcher_main`] first thing in `main`.
    #[must_use]
    pub fn replaceable(self, arguments: &[&str]) -> Self {
        self.place.set_arguments(arguments.iter().map(ToString::to_string).collect());
        self
    }

    /// Changes whenever another launcher has taken the place of a dead one. What the dead one kept is
    /// gone then.
    pub(crate) fn generation(&self) -> u64 {
        self.place.generation()
    }

    /// Parks a process whose id 0 will be `id_base` on the host. It is born in `cgroup`, the directory
    /// of a version 2 control group, if one is given. Blocks for some milliseconds.
    pub(crate) fn park(
        &self,
        id_base: u32,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Parked, LauncherError> {
        self.place.with(|launcher| Self::park_by(launcher, id_base, cgroup))
    }

    fn park_by(
        launcher: &Current,
        id_base: u32,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Parked, LauncherError> {
        let link = |source| LauncherError::Link { process: parked::NAME, source };
        let (control, theirs) = Channel::pair().map_err(link)?;
        let mut fds = vec![theirs.as_fd()];
        fds.extend(cgroup);
        send(launcher, &Task::Park { id_base }, &fds)?;
        drop(theirs);
        let report = expect_report(&control, parked::NAME, Instant::now() + PARK_DEADLINE)?;
        let Some((Report::Parked { pid }, fds)) = report else {
            return Err(unexpected(parked::NAME, report));
        };
        let [userns, netns] =
            <[OwnedFd; 2]>::try_from(fds).map_err(|fds| LauncherError::Confused {
                process: parked::NAME,
                answer: format!("{} descriptors", fds.len()),
            })?;
        let (replaced, generation) = (Arc::clone(&launcher.replaced), launcher.generation);
        Ok(Parked { control, pid, userns, netns, replaced, generation })
    }

    /// Has the launcher keep a copy of `file`, from its current position on, for sandboxes to be shown.
    /// Gives the name of the copy. It stays as long as the launcher.
    pub(crate) fn keep(&self, file: BorrowedFd<'_>) -> Result<String, LauncherError> {
        self.place.with(|launcher| self.keep_by(launcher, file))
    }

    fn keep_by(&self, launcher: &Current, file: BorrowedFd<'_>) -> Result<String, LauncherError> {
        let link = |source| LauncherError::Link { process: zygote::NAME, source };
        let (answers, theirs) = Channel::pair().map_err(link)?;
        let name = format!("file-{}", self.kept.fetch_add(1, Ordering::Relaxed));
        send(launcher, &Task::Keep { name: name.clone() }, &[theirs.as_fd(), file])?;
        drop(theirs);
        match expect_report(&answers, zygote::NAME, Instant::now() + KEEP_DEADLINE)? {
            Some((Report::Ready, _)) => Ok(name),
            other => Err(unexpected(zygote::NAME, other)),
        }
    }
}

fn send(launcher: &Current, task: &Task, fds: &[BorrowedFd<'_>]) -> Result<(), LauncherError> {
    launcher.channel.send(task, fds).map_err(|source| match source.kind() {
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset => LauncherError::Gone { process: zygote::NAME },
        _ => LauncherError::Link { process: zygote::NAME, source },
    })
}

/// A process that waits to become a sandbox. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Parked {
    control: Channel,
    /// Its number. Valid while [`Self::is_alive`].
    pub(crate) pid: u32,
    /// The user namespace of the sandbox.
    pub(crate) userns: OwnedFd,
    /// The network namespace of the sandbox, owned by its user namespace.
    pub(crate) netns: OwnedFd,
    /// Whether its launcher has been replaced: then it does not see files that were kept since.
    replaced: Arc<AtomicBool>,
    /// Which launcher that was, as [`Launcher::generation`] counts.
    pub(crate) generation: u64,
}

/// Descriptors that a sandbox is launched with.
#[derive(Debug)]
pub(crate) struct LaunchFds {
    /// The root file system: a detached mount.
    pub(crate) root: OwnedFd,
    /// The socket on which the agent is to listen.
    pub(crate) listener: OwnedFd,
}

/// A root that was put together.
#[derive(Debug)]
pub(crate) struct Assembled {
    /// The root and all that is mounted in it: a detached tree.
    pub(crate) tree: OwnedFd,
    /// Files that the image has no place for and that were left out.
    pub(crate) skipped: Vec<String>,
}

/// A sandbox's PID 1.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Its number, as the daemon sees it.
    pub(crate) pid: u32,
    /// A descriptor of it.
    pub(crate) pidfd: OwnedFd,
    /// Files that the image has no place for and that were left out.
    pub(crate) skipped: Vec<String>,
}

impl Parked {
    /// Whether the process still waits.
    pub(crate) fn is_alive(&self) -> bool {
        !self.control.is_closed() && !self.replaced.load(Ordering::Acquire)
    }

    /// Turns the process into a sandbox. Blocks until the agent's program has been started, which
    /// is before it answers. After an error no process of the sandbox is left.
    pub(crate) fn launch(self, launch: Launch, fds: LaunchFds) -> Result<Launched, LauncherError> {
        let process = parked::NAME;
        self.order(&Order::Launch(launch), &[fds.root.as_fd(), fds.listener.as_fd()])?;
        drop(fds);
        let mut launched = None;
        match self.follow(&mut launched) {
            Ok(()) => launched.ok_or(LauncherError::Gone { process }),
            Err(error) => {
                launched.iter().for_each(Launched::kill);
                Err(error)
            }
        }
    }

    /// Has the process put a root together, which another program then starts a sandbox in, and end. Its
    /// namespaces live on with the descriptors of this value. Blocks.
    pub(crate) fn assemble(
        &self,
        launch: Launch,
        root: BorrowedFd<'_>,
        sys: bool,
        link: Option<BorrowedFd<'_>>,
    ) -> Result<Assembled, LauncherError> {
        let fds: Vec<_> = [root].into_iter().chain(link).collect();
        self.order(&Order::Assemble { launch, sys }, &fds)?;
        match expect_report(&self.control, parked::NAME, Instant::now() + LAUNCH_DEADLINE)? {
            Some((Report::Assembled { skipped }, mut fds)) => match fds.pop() {
                Some(tree) => Ok(Assembled { tree, skipped }),
                None => Err(LauncherError::Confused {
                    process: parked::NAME,
                    answer: "a root without a descriptor".into(),
                }),
            },
            other => Err(unexpected(parked::NAME, other)),
        }
    }

    fn order(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<(), LauncherError> {
        let process = parked::NAME;
        self.control.send(order, fds).map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                LauncherError::Gone { process }
            }
            _ => LauncherError::Link { process, source },
        })
    }

    /// Reads reports until the last process that could report has executed the agent. Two processes
    /// report, so the start and what comes after it may arrive in any order.
    fn follow(&self, launched: &mut Option<Launched>) -> Result<(), LauncherError> {
        let deadline = Instant::now() + LAUNCH_DEADLINE;
        let mut executing = false;
        loop {
            match expect_report(&self.control, init::NAME, deadline)? {
                Some((Report::Started { pid, skipped }, mut fds)) => {
                    let pidfd = fds.pop().ok_or(LauncherError::Confused {
                        process: parked::NAME,
                        answer: "a start without a descriptor".into(),
                    })?;
                    *launched = Some(Launched { pid, pidfd, skipped });
                }
                Some((Report::Executing, _)) => executing = true,
                None if executing => return Ok(()),
                other => return Err(unexpected(init::NAME, other)),
            }
        }
    }
}

impl Launched {
    fn kill(&self) {
        // It may have ended already, which is as good.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
    }
}

/// The next report; `None` at the end of the link. A failure that is reported is an error.
fn expect_report(
    channel: &Channel,
    process: &'static str,
    deadline: Instant,
) -> Result<Option<(Report, Vec<OwnedFd>)>, LauncherError> {
    match channel.receive_until(deadline) {
        Ok(Some((Report::Failed(failure), _))) => Err(failure.into()),
        Ok(report) => Ok(report),
        Err(source) => Err(LauncherError::Link { process, source }),
    }
}

fn unexpected(process: &'static str, report: Option<(Report, Vec<OwnedFd>)>) -> LauncherError {
    match report {
        None => LauncherError::Gone { process },
        Some((report, _)) => LauncherError::Confused { process, answer: format!("{report:?}") },
    }
}
