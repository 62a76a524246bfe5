//! What is different from one runtime to the other.

use std::ffi::{CStr, OsString};
use std::path::Path;

use crate::runtime::Limits;

/// A runtime that the driver knows how to speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// runc, the reference implementation.
    Runc,
    /// crun.
    Crun,
    /// runsc: gVisor, a kernel in user space, on its platform `systrap`, which needs no KVM.
    Runsc,
}

/// Tasks that are there besides those of the sandbox while it is being started: runtimes are programs with
/// several threads, and the group counts these as well until they have become the agent.
const STARTERS: u32 = 32;

impl Flavour {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Runc, Self::Crun, Self::Runsc];

    /// The name of its program, and of the driver that uses it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Runsc => "runsc",
        }
    }

    /// The flavour of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flavour| flavour.name() == name)
    }

    /// Whether sandboxes have a kernel of their own, of which the host shows only files and a network
    /// interface.
    pub fn own_kernel(self) -> bool {
        self == Self::Runsc
    }

    /// Whether the agent can be handed a listening socket. Where not, it makes one in a directory that it
    /// shares with the host.
    pub(super) fn hands_sockets_over(self) -> bool {
        self != Self::Runsc
    }

    /// Whether it joins a user namespace that is there already. Where not, it makes an equal one.
    pub(super) fn joins_user_namespaces(self) -> bool {
        self != Self::Runsc
    }

    /// Whether it refuses to work where controllers are in version 1 hierarchies and there is one of
    /// version 2 besides.
    pub(super) fn refuses_hybrid_groups(self) -> bool {
        self == Self::Crun
    }

    /// Directories that it is to find empty.
    ///
    /// runsc refuses to connect a sandbox in the host's own network namespace, which it knows by settings
    /// that used to be there alone (`net/core/rmem_default`). Newer kernels show these everywhere. The
    /// namespace that it is given is never the host's.
    pub(super) fn covered(self) -> &'static [&'static CStr] {
        match self {
            Self::Runsc => &[c"/proc/sys/net"],
            Self::Runc | Self::Crun => &[],
        }
    }

    /// Options before the command. `root` is where it keeps what it knows, `log` where it says what went
    /// wrong.
    pub(super) fn global_arguments(self, root: &Path, log: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            vec!["--root".into(), root.into(), "--log".into(), log.into()];
        if self == Self::Runsc {
            let options = [
                "--platform=systrap",
                "--network=sandbox",
                // Changes are to be in the sandbox's own upper, and not in a file of the runtime's.
                "--overlay2=none",
                // The agent makes the socket on which it listens.
                "--host-uds=create",
                "--net-raw",
            ];
            arguments.extend(options.map(OsString::from));
        }
        arguments
    }

    /// Whether it ends when it can have no more processes on the host. Where it does, it is to refuse them to
    /// the sandbox first, by a limit of its own.
    pub(super) fn counts_processes(self) -> bool {
        self == Self::Runsc
    }

    pub(super) fn starting_limits(self, limits: &Limits) -> Limits {
        let running = self.running_limits(limits);
        Limits { pids: running.pids.max(STARTERS), ..running }
    }

    pub(super) fn running_limits(self, limits: &Limits) -> Limits {
        match self {
            Self::Runc | Self::Crun => *limits,
            Self::Runsc => Limits {
                memory: limits.memory + SENTRY_MEMORY,
                pids: limits.pids.saturating_mul(2).saturating_add(SENTRY_TASKS),
                ..*limits
            },
        }
    }
}

/// What gVisor's own kernel needs of memory, besides what runs on it.
const SENTRY_MEMORY: u64 = 64 << 20;
/// The threads of gVisor's own processes. Each process in the sandbox is up to two on the host.
const SENTRY_TASKS: u32 = 128;
