//! The root file system of a sandbox: one overlay of read-only layers below and one private upper above.
//!
//! Owns: the mounts of layers ([`LayerMounts`]), the uppers ([`UpperStore`]), the overlay that joins
//! them, and the layer of mount points that lies below every image. Refuses: to know images, sandboxes
//! or the database; to attach a mount anywhere (every mount it gives is detached, and the driver puts
//! it where it belongs); to read what is in a layer or an upper. Blocking code only.
#![deny(unsafe_code)]

mod attached;
#[cfg(feature = "conformance")]
pub mod conformance;
mod directories;
mod erofs;
mod error;
mod inherit;
mod layers;
mod overlay;
mod removal;
mod roots;
mod skeleton;
mod sys;
mod uppers;

pub use directories::DirectoryMounts;
pub use erofs::ErofsMounts;
pub use error::RootsError;
pub use layers::{LayerDamage, LayerMounts, LayerSource};
pub use roots::Roots;
pub use uppers::{
    Changes, DirectoryUppers, HostUppers, ImageUppers, UpperKind, UpperLimits, UpperStore, Usage,
};
