//! What the daemon and the processes of the launcher say to each other.
//!
//! Both ends are the same program, so the encoding (JSON) has no version.

use serde::{Deserialize, Serialize};

use super::step::Failure;

/// To the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Park a process. Descriptors: its control socket, and the directory of the version 2 control
    /// group that it is to be born in, if there is one.
    Park {
        /// The host id that is 0 in the sandbox.
        id_base: u32,
    },
    /// Keep a copy of a file for sandboxes. Descriptors: a socket for the answer
    /// ([`Report::Ready`]), and the file.
    Keep {
        /// A name that no other file was kept under.
        name: String,
    },
}

/// To a parked process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Become a sandbox. Descriptors: the root mount, the agent's listening socket.
    Launch(Launch),
    /// Put the root of a sandbox together for somebody else to start. Descriptors: the root mount, and
    /// the mount to show as [`LINK`](super::tree::LINK), if there is one.
    Assemble {
        /// What the root depends on.
        launch: Launch,
        /// Whether the root gets a `/sys`.
        sys: bool,
    },
}

/// What a sandbox is started with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) hostname: String,
    /// `/etc/hosts`.
    pub(crate) hosts: String,
    /// `/etc/resolv.conf`.
    pub(crate) resolv_conf: String,
    /// The environment of PID 1, `NAME=value` each.
    pub(crate) env: Vec<String>,
    /// The size of `/dev/shm` in bytes.
    pub(crate) shm_bytes: u64,
    /// The name under which the launcher keeps the CA bundle, if there is one.
    pub(crate) ca_bundle: Option<String>,
    /// Whether no program may gain privileges (set-user-id, file capabilities).
    pub(crate) no_new_privs: bool,
}

/// From a process of the launcher. The end of the socket after [`Report::Executing`] says that
/// the agent runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The launcher is up, or has done its task.
    Ready,
    /// The process is parked. Descriptors: its user namespace, its network namespace.
    Parked {
        /// Its number in the daemon's PID namespace.
        pid: u32,
    },
    /// PID 1 was made. Descriptor: its pidfd.
    Started {
        /// Its number in the daemon's PID namespace.
        pid: u32,
        /// Files that the image has no place for and that were left out.
        skipped: Vec<String>,
    },
    /// The root was put together. Descriptor: the mounts, as a detached tree.
    Assembled {
        /// Files that the image has no place for and that were left out.
        skipped: Vec<String>,
    },
    /// PID 1 is complete; all that follows is the exec.
    Executing,
    /// It did not work.
    Failed(Failure),
}
