//! The native driver against the kernel.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a test says what it skips")]

#[path = "native_sandbox/conformance.rs"]
mod conformance;
#[path = "native_sandbox/crash.rs"]
mod crash;
#[path = "native_sandbox/crowd.rs"]
mod crowd;
#[path = "native_sandbox/files.rs"]
mod files;
#[path = "native_sandbox/fixture.rs"]
mod fixture;
#[path = "native_sandbox/idmap.rs"]
mod idmap;
#[path = "native_sandbox/lab.rs"]
mod lab;
#[path = "native_sandbox/mounts.rs"]
mod mounts;
#[path = "native_sandbox/outside.rs"]
mod outside;
#[path = "native_sandbox/process.rs"]
mod process;
#[path = "native_sandbox/refusals.rs"]
mod refusals;
