//! What every implementation of this crate's traits must do, as suites that panic where it does not.

pub mod layer_mounts;
pub mod upper_store;
