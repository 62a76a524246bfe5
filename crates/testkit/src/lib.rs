//! What tests need and no product code may use: registries, images, file trees, probes.
//!
//! Owns: an in-process OCI registry that fails on request, a wrapper around a real one, images and
//! layers made from descriptions, a minimal push, and the probes that say what a host can do.
//! Refuses: to be a dependency of anything but tests, and to reach beyond the loopback interface.
#![forbid(unsafe_code)]

mod archive;
mod docker_registry;
mod image;
mod probe;
mod push;
mod registry;
mod tree;

pub use archive::{gzip, gzip_members, zstd};
pub use docker_registry::DockerRegistry;
pub use image::{Compression, ImageBuilder, TestImage, index_of};
pub use probe::{has_filesystem, has_program, is_root, skip};
pub use push::push;
pub use registry::{Access, Action, Fault, Registry, Seen};
pub use tree::Tree;
