//! Fail points: named places between two durable effects of an operation, where the process can be
//! made to die or the operation to fail.
//!
//! Owns: the names ([`POINTS`]) and what happens at them. Refuses: to do anything in an ordinary build.
//! Without the feature `failpoints` both functions are empty and nothing is read from the environment.
//!
//! With it, `KILN_FAIL_POINT=name[:nth]=kill|error|enospc` arms one point for the life of the process;
//! `KILN_FAIL_POINT_FILE=path` names a file with the same text, which is read again at every point, so
//! that a harness arms a running daemon. A plan is carried out once; `path.fired` then exists.
#![forbid(unsafe_code)]

mod names;
#[cfg(feature = "failpoints")]
mod plan;

pub use names::{POINTS, Point};

/// Whether this build has fail points.
pub const ENABLED: bool = cfg!(feature = "failpoints");

/// A place where the process can die, and the operation can fail: with the error that is given.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
#[allow(clippy::inline_always, reason = "an ordinary build has no trace of it")]
pub const fn reach(_name: &'static str) -> std::io::Result<()> {
    Ok(())
}

/// A place where the process can die: after what cannot be called back.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
#[allow(clippy::inline_always, reason = "an ordinary build has no trace of it")]
pub const fn pass(_name: &'static str) {}

/// A place where the process can die, and the operation can fail: with the error that is given.
#[cfg(feature = "failpoints")]
pub fn reach(name: &'static str) -> std::io::Result<()> {
    plan::hit(name).map_or(Ok(()), Err)
}

/// A place where the process can die: after what cannot be called back.
#[cfg(feature = "failpoints")]
pub fn pass(name: &'static str) {
    // A plan to fail here cannot be carried out; the table says which points can.
    drop(plan::hit(name));
}
