//! The layer crate from outside: archives in, indexes out, and what the kernel makes of them.

mod archive;
mod debian;
mod fixtures;
mod indexes;
mod kernel;
mod model;
mod overlays;
mod parents;
mod properties;
mod reading;
mod refusals;
mod snapshot;
mod stacks;
mod symlinks;
mod uppers;
