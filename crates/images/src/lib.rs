//! Images and their layers: from bytes that arrive to layers that can be mounted.
//!
//! Owns: the OCI manifest and config (written deterministically, read within limits), the ingest of
//! layers and their index files, the rules by which an image is found, proven, described and removed.
//! Refuses: to talk to a registry, to mount or run anything, and to change one byte of a manifest or
//! config that somebody else made. Nothing is taken for present because a row says so: a layer is
//! handed out only when its tar has the right size and its index opens.
#![forbid(unsafe_code)]

mod blocking;
mod error;
pub mod oci;
mod store;

pub use error::ImagesError;
pub use store::{
    Collected, Examined, Examiner, Fault, FsckProgress, GcScope, ImageStore, LayerHold, Leftover,
    MAX_LAYERS, MountableLayer, NewImage, OnProgress, PendingLayer, Removed, Repaired, StoreBytes,
    leftovers,
};
