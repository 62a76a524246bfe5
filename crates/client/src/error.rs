//! What a call could end with instead of its answer.

use kiln_types::{ErrorCode, Problem};

/// A failed call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The endpoint is not one that this client can speak to.
    #[error("`{endpoint}` is not a usable endpoint: {reason}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// The name cannot be part of a request: as a segment of a path it would mean another route.
    #[error("`{name}` is no name; one is not empty, `.` or `..`")]
    Name {
        /// What was given.
        name: String,
    },
    /// The daemon could not be reached.
    #[error("could not reach the daemon at {endpoint}")]
    Connect {
        /// Where.
        endpoint: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection broke in the middle of an answer.
    #[error("the connection to the daemon broke while it {action}")]
    Broken {
        /// What was under way.
        action: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon refused or failed, and said why.
    #[error("{0}")]
    Problem(Problem),
    /// The answer is not what the API promises.
    #[error("the daemon's answer to {action} is not understood: {reason}")]
    Protocol {
        /// The request.
        action: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl ClientError {
    /// The code of the daemon's answer, when there is one.
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            _ => None,
        }
    }
}
