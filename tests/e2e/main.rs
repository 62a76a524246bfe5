//! End to end: the real binary, a real daemon, real sandboxes. A test named `s4_3_…` proves row S4.3
//! of the requirements; `cargo xtask rows` prints which test proves which row.

mod api;
mod bad_input;
mod build;
mod daemon;
mod environment;
mod exec;
mod fixture;
mod layers;
mod lifecycle;
mod musl;
mod network;
mod pull;
mod snapshot;
mod surface;
mod terminal;
