//! End to end: the real binary, a real daemon, real sandboxes. A test named `s4_3_…` proves row S4.3
//! of the requirements; `cargo xtask rows` prints which test proves which row.

mod api;
mod bad_input;
mod build;
mod daemon;
mod df;
mod disks;
mod documents;
mod draining;
mod drivers;
mod environment;
mod exec;
mod fixture;
mod fsck;
mod full_disk;
mod gc;
mod hostile_guest;
mod hostile_layers;
mod layer_modes;
mod layers;
mod lifecycle;
mod musl;
mod network;
mod pull;
mod snapshot;
mod surface;
mod terminal;
