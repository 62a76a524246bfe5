//! Another launcher in the place of one that was killed.
//!
//! The first launcher is a fork of the daemon, which has no threads then. Later it has some, so what takes
//! the place of a dead launcher is this very program, executed anew: it finds the link to the daemon as
//! its standard input.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::channel::Channel;
use super::message::Report;
use super::{LauncherError, START_DEADLINE, expect_report, unexpected, zygote};

/// A launcher, and what belongs to it alone.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) channel: Arc<Channel>,
    /// A child of this process.
    pid: Pid,
    /// Whether another one has taken its place.
    pub(super) replaced: Arc<AtomicBool>,
    /// How many there were before it.
    pub(super) generation: u64,
}

/// The launcher of the moment.
#[derive(Debug)]
pub(super) struct Place {
    current: Mutex<Current>,
    /// The arguments with which this program becomes a launcher.
    arguments: OnceLock<Vec<String>>,
}

impl Current {
    pub(super) fn new(channel: Channel, pid: Pid, generation: u64) -> Self {
        Self { channel: Arc::new(channel), pid, replaced: Arc::default(), generation }
    }
}

impl Place {
    pub(super) fn new(first: Current) -> Self {
        Self { current: Mutex::new(first), arguments: OnceLock::new() }
    }

    pub(super) fn set_arguments(&self, arguments: Vec<String>) {
        // The first to say so is right: there is one program.
        let _ = self.arguments.set(arguments);
    }

    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    pub(super) fn current(&self) -> Current {
        self.lock().clone()
    }

    /// Does `work` with the launcher; if that is dead, once more with another one.
    pub(super) fn with<T>(
        &self,
        work: impl Fn(&Current) -> Result<T, LauncherError>,
    ) -> Result<T, LauncherError> {
        let current = self.current();
        match work(&current) {
            Err(LauncherError::Gone { .. }) if current.channel.is_closed() => {
                let Some(arguments) = self.arguments.get() else {
                    return Err(LauncherError::Gone { process: zygote::NAME });
                };
                work(&self.replace(&current, arguments)?)
            }
            other => other,
        }
    }

    /// Puts another launcher in the place of `dead`, unless somebody has done so already.
    fn replace(&self, dead: &Current, arguments: &[String]) -> Result<Current, LauncherError> {
        let mut current = self.lock();
        if !Arc::ptr_eq(&current.channel, &dead.channel) {
            return Ok(current.clone());
        }
        tracing::warn!(pid = dead.pid.as_raw_nonzero(), "the launcher has died; starting another");
        // It is a child that nobody has waited for, so the number is still its own.
        let _ = kill_process(dead.pid, Signal::KILL);
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(dead.pid), WaitOptions::empty()));
        let next = execute(arguments, dead.generation + 1)?;
        dead.replaced.store(true, Ordering::Release);
        *current = next.clone();
        Ok(next)
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn execute(arguments: &[String], generation: u64) -> Result<Current, LauncherError> {
    let link = |source| LauncherError::Link { process: zygote::NAME, source };
    let failed = |source| LauncherError::Step { step: "start another launcher".into(), source };
    let (ours, theirs) = Channel::pair().map_err(link)?;
    let theirs: OwnedFd = theirs.as_fd().try_clone_to_owned().map_err(link)?;
    // Also a program that was replaced on disk meanwhile speaks the daemon's own language this way.
    let child = Command::new("/proc/self/exe")
        .arg0("kiln-launcher")
        .args(arguments)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let pid = Pid::from_child(&child);
    match expect_report(&ours, zygote::NAME, Instant::now() + START_DEADLINE) {
        Ok(Some((Report::Ready, _))) => Ok(Current::new(ours, pid, generation)),
        other => {
            let _ = kill_process(pid, Signal::KILL);
            let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
            Err(other.map_or_else(|error| error, |report| unexpected(zygote::NAME, report)))
        }
    }
}

/// Is the launcher whose daemon is at the other end of the standard input, until that closes. For the
/// process that [`super::Launcher::replaceable`] describes; gives its exit code.
pub fn launcher_main() -> u8 {
    match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(link) => zygote::run(&Channel::from_socket(link)),
        Err(_) => 1,
    }
}
