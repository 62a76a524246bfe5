//! The peers: what they need to run here without touching the host's own configuration.

mod api;
mod leftovers;
mod podman;
mod registry;
mod runtimes;

pub(crate) use podman::{Network, Podman};
pub(crate) use registry::{Registry, largest_blob};
pub(crate) use runtimes::{Bundle, OciRuntime, configure};
