//! Front ends: from what users write to the image definition that the engine builds.
//!
//! Owns: the translation of templates, the rules by which a definition is valid, the check of argv for
//! shell operators. Refuses: to touch files, the network or the store. What it lets through can be
//! built; whether the build succeeds is another matter.
#![forbid(unsafe_code)]

pub mod argv;
pub mod base;
pub mod definition;
mod error;
pub mod template;

pub use argv::OperatorInArgv;
pub use error::{FieldError, FrontendError};
