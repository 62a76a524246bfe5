//! Planned failures.

use std::time::Duration;

/// A failure that happens to the next requests whose path contains a text.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Part of the path: a digest, `/manifests/`, `/blobs/`, `/token`.
    pub path: String,
    /// How many requests it happens to.
    pub times: usize,
    /// What happens.
    pub action: Action,
}

/// What happens instead of the right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The connection breaks after so many bytes of the body, counted from its beginning.
    DropAfter(usize),
    /// The answer ends after so many bytes and says that this is all.
    Truncate(usize),
    /// The last byte is another one.
    Corrupt,
    /// Other bytes come.
    Replace(Vec<u8>),
    /// A status, with `Retry-After` if there is one.
    Status {
        /// The status.
        status: u16,
        /// The value of the header.
        retry_after: Option<String>,
    },
    /// A redirect to this address with the request's path behind it.
    Redirect(String),
    /// The body comes one byte at a time, with this pause before each.
    Drip(Duration),
    /// `Range` is not heeded.
    NoRange,
}

impl Fault {
    /// A failure of every matching request.
    pub fn always(path: impl Into<String>, action: Action) -> Self {
        Self { path: path.into(), times: usize::MAX, action }
    }

    /// A failure of the next matching request.
    pub fn once(path: impl Into<String>, action: Action) -> Self {
        Self { path: path.into(), times: 1, action }
    }

    /// A failure of the next matching requests.
    pub fn times(times: usize, path: impl Into<String>, action: Action) -> Self {
        Self { path: path.into(), times, action }
    }
}
