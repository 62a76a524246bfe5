//! Running sandboxes: the `Runtime` interface, its drivers, and the host end of the guest agent.
//!
//! Owns: namespaces, cgroups, the sandbox network, the launcher process, and the link to each agent.
//! Refuses: to know images, layers or the database. A caller hands in a root file system that is
//! already a mount, and is told what is worth writing down.

pub mod agent;
pub mod cgroup;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod drivers;
pub mod host;
pub mod launcher;
pub mod native;
pub mod network;
pub mod oci;
pub mod probe;
pub mod runtime;

mod seccomp;
#[allow(unsafe_code, reason = "the kernel interfaces that rustix does not have")]
mod sys;

pub use drivers::Drivers;
pub use launcher::{Launcher, LauncherError, launcher_main};
pub use native::{NativeConfig, NativeRuntime};
pub use oci::{OciConfig, OciRuntime};

pub use probe::probe;
pub use runtime::{
    BoxError, Exit, IDS_PER_SANDBOX, Limits, RootSource, Running, Runtime, RuntimeError,
    SandboxSpec, Slot, Slots, Userns,
};
