//! Control groups: the limits of a sandbox, and freezing and killing all that is in it at once.
//!
//! Two kinds of hosts are served: those with version 2 alone, and hybrid ones, whose limits are in
//! version 1 hierarchies while a version 2 group freezes and kills. Each controller is used where the
//! kernel has it. Calls block, some until a deadline: run them on a thread that may.

mod control;
mod freeze;
mod group;
mod hierarchy;
mod kill;
mod limits;
mod mounts;
mod statistics;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use self::group::Group;
pub use self::hierarchy::{Hierarchy, Mode};

/// What went wrong with a control group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// A controller that limits need is nowhere to be found.
    #[error(
        "no cgroup controller `{controller}` below {}: enable it in the kernel (some systems need \
         `cgroup_enable={controller}` on its command line), or, in a container, delegate it",
        root.display()
    )]
    Controller {
        /// The controller.
        controller: &'static str,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// A name that cannot be a directory's.
    #[error("`{name}` cannot name a cgroup: it has to be one plain directory name")]
    Name {
        /// The name.
        name: String,
    },
    /// A limit that no kernel enforces.
    #[error("limit `{field}` is 0: it has to be at least 1")]
    Limit {
        /// The limit.
        field: &'static str,
    },
    /// A directory or a file of a group could not be used.
    #[error("could not {action} {}", path.display())]
    File {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of a group does not say what was expected.
    #[error("{} holds `{content}`, in which there is no {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it holds.
        content: String,
        /// What was looked for.
        expected: &'static str,
    },
    /// The host can do this in no way.
    #[error("cgroup {} cannot be frozen: the kernel has neither cgroup.freeze nor a freezer", path.display())]
    NoFreezer {
        /// The group.
        path: PathBuf,
    },
    /// The group was killed, and would kill what is put into it.
    #[error("cgroup {} was killed and takes no more processes: make a new one", path.display())]
    Killed {
        /// The group.
        path: PathBuf,
    },
    /// Something is still in the group.
    #[error("cgroup {} still has processes ({pids:?})", path.display())]
    Busy {
        /// The group.
        path: PathBuf,
        /// The first few of them.
        pids: Vec<u32>,
    },
    /// The kernel did not get there in time.
    #[error("cgroup {} is not {state} after {waited:?}", path.display())]
    Timeout {
        /// The group.
        path: PathBuf,
        /// The state that was waited for.
        state: &'static str,
        /// How long.
        waited: Duration,
    },
}
