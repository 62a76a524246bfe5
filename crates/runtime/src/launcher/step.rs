//! What went wrong in a process of the launcher, in a form that crosses a socket.

use std::io;

use serde::{Deserialize, Serialize};

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The step, as an infinitive: `mount /proc`.
    pub(crate) step: String,
    /// The kernel's error number.
    pub(crate) errno: i32,
}

impl Failure {
    /// A step that failed for a reason which is no error of a system call.
    pub(crate) fn new(step: impl Into<String>, errno: i32) -> Self {
        Self { step: step.into(), errno }
    }

    /// The cause.
    pub(crate) fn source(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }
}

/// Names the step that a result belongs to.
pub(crate) trait Step<T> {
    /// `step` is an infinitive.
    fn step(self, step: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, error.into().raw_os_error().unwrap_or(libc::EIO)))
    }
}
