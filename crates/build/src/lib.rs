//! The solver: from an image definition to an image.
//!
//! Owns: where a base comes from, the keys of a definition's steps, what of it is in the cache, how a
//! step is run and becomes a layer, the build's log, and that equal work in flight is done once.
//! Refuses: to know which front end wrote the definition, how layers are stored or mounted, and how a
//! sandbox is isolated. Nothing half-made stays: a layer's row is written when the layer is durable, an
//! upper and a sandbox go with the step that made them, whatever happens to it.
#![forbid(unsafe_code)]

mod bases;
mod builder;
mod cache;
mod error;
mod flight;
mod log;
mod plan;
mod program;
mod ready;
pub mod snapshot;
mod solve;
mod step;

pub use bases::{BaseError, CatalogSource};
pub use builder::Builder;
pub use error::BuildError;
pub use plan::{BuildPlan, BuilderConfig};
pub use ready::make_ready;
