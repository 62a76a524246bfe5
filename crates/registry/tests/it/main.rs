//! The client against registries on loopback: one in this process that fails on request, and the one
//! of the distribution project where it is installed.

mod access;
mod docker;
mod faults;
mod hostile;
mod images;
mod lies;
mod mirrors;
mod support;
mod wire;
