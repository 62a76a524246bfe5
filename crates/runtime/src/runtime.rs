//! The interface that every driver implements.
//!
//! A sandbox's life: `create` (root mounted, agent answering) → any number of agent calls → `stop`
//! (orderly, then by force) → `create` again with the same upper, or nothing. After the daemon was
//! restarted, `adopt` finds a sandbox that kept running. Every call may be repeated: stopping what is
//! not there is not an error.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_types::SandboxId;
use tokio::sync::watch;

use crate::agent::Agent;

/// A driver.
#[async_trait]
pub trait Runtime: Send + Sync + fmt::Debug {
    /// The driver's name, as configuration and `doctor` use it.
    fn name(&self) -> &str;

    /// Starts a sandbox and waits until its agent answers.
    ///
    /// `root` is called once, on a thread that may block, when the user namespace is known. If
    /// anything fails, nothing of the sandbox is left.
    async fn create(
        &self,
        spec: SandboxSpec,
        root: Box<dyn RootSource>,
    ) -> Result<Running, RuntimeError>;

    /// Finds a sandbox of an earlier life of the daemon; `None` when it no longer runs (whatever it
    /// left, cgroups and network included, is then cleaned up). For one that this daemon already has,
    /// a lost link to its agent is made anew.
    async fn adopt(&self, spec: SandboxSpec) -> Result<Option<Running>, RuntimeError>;

    /// Ends a sandbox: asks its agent to shut down, waits `grace`, then kills everything in it, and
    /// releases cgroups and network (of which the kernel may be at work for some milliseconds longer).
    /// The upper is left as it is, unmounted.
    async fn stop(&self, id: SandboxId, grace: Duration) -> Result<(), RuntimeError>;

    /// Stops every process of the sandbox from running until `thaw`.
    async fn freeze(&self, id: SandboxId) -> Result<(), RuntimeError>;

    /// Lets a frozen sandbox run on.
    async fn thaw(&self, id: SandboxId) -> Result<(), RuntimeError>;

    /// Removes what sandboxes that are not in `alive` have left on this host (after a crash).
    async fn sweep(&self, alive: &[SandboxId]) -> Result<(), RuntimeError>;
}

/// What a driver needs to know about a sandbox.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// Its id.
    pub id: SandboxId,
    /// Its host name.
    pub hostname: String,
    /// The environment of PID 1 (agent calls carry their own).
    pub env: Vec<(String, String)>,
    /// Its limits.
    pub limits: Limits,
    /// The slot it has; `None` to be given a fresh one.
    pub slot: Option<Slot>,
    /// Whether it is to have a way out to the network; loopback is always there.
    pub network: bool,
    /// The driver that is to run it, where there are several; `None` for the configured one.
    pub driver: Option<String>,
}

/// Hard limits, in force from the first instruction of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time, in CPUs.
    pub vcpu: u32,
    /// Memory in bytes; swap is not added to it.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// The number of a sandbox on this daemon. It decides the sandbox's host ids and its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    /// Slots are counted from 0 up to, not including, this.
    pub const COUNT: u32 = 4096;
}

/// How many host user and group ids every sandbox has.
pub const IDS_PER_SANDBOX: u32 = 65_536;

/// Where slots come from. A slot is never handed out again while a disk that used its ids exists.
#[async_trait]
pub trait Slots: Send + Sync + fmt::Debug {
    /// Takes a free slot.
    async fn reserve(&self) -> Result<Slot, BoxError>;
    /// Gives one back that was never used by a sandbox.
    async fn release(&self, slot: Slot) -> Result<(), BoxError>;
}

/// An error of a collaborator that this crate only passes on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The user namespace that a root is mounted for.
#[derive(Clone, Copy, Debug)]
pub struct Userns<'a> {
    /// The namespace, for `MOUNT_ATTR_IDMAP`.
    pub fd: BorrowedFd<'a>,
    /// The host id that is 0 inside; [`IDS_PER_SANDBOX`] ids follow it.
    pub base: u32,
}

/// Mounts the sandbox's root: gives a detached, writable mount whose owner 0 is the namespace's first id.
pub trait RootSource: Send {
    /// Makes the mount. Called once.
    fn mount(self: Box<Self>, userns: Userns<'_>) -> Result<OwnedFd, BoxError>;
}

impl<F> RootSource for F
where
    F: FnOnce(Userns<'_>) -> Result<OwnedFd, BoxError> + Send,
{
    fn mount(self: Box<Self>, userns: Userns<'_>) -> Result<OwnedFd, BoxError> {
        (*self)(userns)
    }
}

/// A running sandbox.
#[derive(Clone, Debug)]
pub struct Running {
    /// The link to its agent.
    pub agent: Agent,
    /// The slot it runs in.
    pub slot: Slot,
    /// Its address, if it has a network.
    pub address: Option<Ipv4Addr>,
    /// Its PID 1, as the host sees it.
    pub pid: u32,
    /// Becomes `Some` when PID 1 has ended, however it ended.
    pub exit: watch::Receiver<Option<Exit>>,
}

/// How a sandbox ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Whether the kernel killed something in it for want of memory.
    pub out_of_memory: bool,
    /// One sentence for people.
    pub reason: Arc<str>,
}

/// What a driver could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The launcher process is gone or does not answer as it should.
    #[error("the launcher failed while it {action}")]
    Launcher {
        /// What was asked of it.
        action: &'static str,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// A step of the start failed inside the launcher.
    #[error("sandbox {id}: could not {step}")]
    Start {
        /// The sandbox.
        id: SandboxId,
        /// The step, as an infinitive: `mount /proc`.
        step: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The root file system could not be mounted.
    #[error("sandbox {id}: could not mount its root")]
    Root {
        /// The sandbox.
        id: SandboxId,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// No slot was to be had.
    #[error("sandbox {id}: no free slot for it on this host")]
    Slot {
        /// The sandbox.
        id: SandboxId,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// The network could not be set up.
    #[error("sandbox {id}: could not {step}")]
    Network {
        /// The sandbox.
        id: SandboxId,
        /// The step, as an infinitive.
        step: String,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// A control group could not be made, changed or removed.
    #[error("could not {action} control group {group}")]
    Cgroup {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The group's name below the daemon's.
        group: String,
        /// The cause.
        #[source]
        source: crate::cgroup::CgroupError,
    },
    /// The sandbox, or another one in its slot, runs or is being started or stopped.
    #[error("sandbox {id}: {what} already; stop it first")]
    Busy {
        /// The sandbox.
        id: SandboxId,
        /// What is in the way, as a clause: `it runs`.
        what: String,
    },
    /// No such sandbox runs.
    #[error("sandbox {id} does not run")]
    NotRunning {
        /// The sandbox.
        id: SandboxId,
    },
    /// The sandbox was started with something that cannot be passed on.
    #[error("sandbox {id}: {field} {value:?} {problem}")]
    Invalid {
        /// The sandbox.
        id: SandboxId,
        /// The field of [`SandboxSpec`].
        field: &'static str,
        /// Its value, or the part of it that is wrong.
        value: String,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// The sandbox could not be ended.
    #[error("sandbox {id} still runs {after:?} after all of it was killed")]
    Unkillable {
        /// The sandbox.
        id: SandboxId,
        /// How long it was waited for.
        after: Duration,
    },
    /// The host could not be set up for sandboxes.
    #[error("could not {step}")]
    Setup {
        /// The step, as an infinitive.
        step: &'static str,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// The agent does not answer.
    #[error("sandbox {id}: its agent does not answer")]
    Agent {
        /// The sandbox.
        id: SandboxId,
        /// The cause.
        #[source]
        source: crate::agent::AgentError,
    },
    /// The driver that was asked for is none of this daemon's, or cannot be used on this host.
    #[error("driver `{driver}` {problem}")]
    Driver {
        /// The driver, as asked for.
        driver: String,
        /// What is wrong with it, as a clause.
        problem: String,
    },
    /// A program that the driver runs has failed.
    #[error("sandbox {id}: {program} could not {action}")]
    Program {
        /// The sandbox.
        id: SandboxId,
        /// The program, as configured.
        program: String,
        /// What it was to do, as an infinitive.
        action: &'static str,
        /// How it ended, and what it said.
        #[source]
        source: BoxError,
    },
    /// A file of the runtime's own directory could not be used.
    #[error("could not {action} {}", path.display())]
    State {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
