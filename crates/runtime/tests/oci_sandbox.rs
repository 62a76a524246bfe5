//! The `oci` driver with real runtimes.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a test says what it skips")]
#![allow(dead_code, reason = "parts of the native driver's fixture are not used here")]

#[path = "oci_sandbox/conformance.rs"]
mod conformance;
#[path = "native_sandbox/fixture.rs"]
mod fixture;
#[path = "native_sandbox/idmap.rs"]
mod idmap;
#[path = "native_sandbox/lab.rs"]
mod lab;
#[path = "oci_sandbox/life.rs"]
mod life;
