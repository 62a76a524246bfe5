//! The vocabulary of Kiln: digests, references, ids, image definitions, API messages, events and
//! error codes, with their canonical form and keys.
//!
//! Owns: every type that crosses a crate boundary or the wire, and the rules that make a constructed
//! value a valid one. Refuses: IO of any kind, clocks, randomness beyond id generation, and async.
#![forbid(unsafe_code)]

pub mod api;
pub mod canonical;
pub mod definition;
pub mod digest;
pub mod error;
pub mod event;
pub mod id;
pub mod json;
mod printable;
pub mod reference;
pub mod template;

pub use canonical::{StepKey, canonical_json};
pub use definition::{Base, FileStep, ImageConfig, ImageDefinition, RunCommand, Step};
pub use digest::{ChainId, DiffId, Digest};
pub use error::{ErrorCode, Problem};
pub use event::BuildEvent;
pub use id::{BuildId, KeyId, SandboxId, SnapshotId};
pub use reference::{ImageName, Reference};
pub use template::TemplateSpec;
