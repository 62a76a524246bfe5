//! A failed step of something done to an image, before anybody has said which image.

use std::io;

use crate::RootsError;

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: &'static str,
    /// What the kernel says about it, if anything.
    pub(super) kernel: String,
    pub(super) source: io::Error,
}

impl Failure {
    /// For `map_err`.
    pub(super) fn of<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self { step, kernel: String::new(), source: source.into() }
    }

    /// The error for callers.
    pub(super) fn with(self, image: impl Into<String>) -> RootsError {
        let Self { step, kernel, source } = self;
        RootsError::Image { image: image.into(), step, kernel, source }
    }
}
