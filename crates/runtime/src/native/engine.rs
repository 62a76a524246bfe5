//! What turns a slot that is ready into a running sandbox.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use kiln_types::SandboxId;

use super::prepared::launcher;
use crate::cgroup::{Group, Hierarchy};
use crate::launcher::{Launch, LaunchFds, Launched, Parked};
use crate::runtime::{Limits, RuntimeError};

/// The last part of a start, which drivers do in different ways. All that comes before it and after it
/// (slot, groups, network, root, the link to the agent, the end) is the same for all.
pub(crate) trait Engine: std::fmt::Debug + Send + Sync {
    /// The driver's name.
    fn name(&self) -> &str;

    /// The limits that are in force while the sandbox is being started. Those that were asked for are set
    /// again before anything but the agent runs in it.
    fn starting_limits(&self, limits: &Limits) -> Limits {
        *limits
    }

    /// The limits that are in force while the sandbox runs.
    fn running_limits(&self, limits: &Limits) -> Limits {
        *limits
    }

    /// Starts the agent in the slot. Blocks. After an error the caller kills everything in the group and
    /// removes the directory.
    fn launch(&self, ready: Ready<'_>) -> Result<Launched, RuntimeError>;
}

/// What a sandbox is started with.
#[derive(Debug)]
pub(crate) struct Ready<'a> {
    pub(crate) id: SandboxId,
    pub(crate) parked: Parked,
    /// The control group; limits are in force.
    pub(crate) group: &'a Group,
    /// Its path below the root of each hierarchy.
    pub(crate) group_path: String,
    pub(crate) hierarchy: &'a Hierarchy,
    /// The host id that is 0 inside.
    pub(crate) id_base: u32,
    /// A detached mount.
    pub(crate) root: OwnedFd,
    /// The socket on which the agent is to listen, bound to `agent.sock` in `dir`.
    pub(crate) listener: OwnedFd,
    pub(crate) launch: Launch,
    pub(crate) limits: Limits,
    /// The sandbox's own directory on the host.
    pub(crate) dir: PathBuf,
}

/// Sandboxes out of the launcher's own hands.
#[derive(Debug)]
pub(super) struct Namespaces;

impl Engine for Namespaces {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn launch(&self, ready: Ready<'_>) -> Result<Launched, RuntimeError> {
        let fds = LaunchFds { root: ready.root, listener: ready.listener };
        ready.parked.launch(ready.launch, fds).map_err(launcher(ready.id, "started a sandbox"))
    }
}
