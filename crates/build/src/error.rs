//! What a builder could not do for its caller. A build that failed is no error of this kind: its record
//! says why.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_images::ImagesError;
use kiln_metadata::MetadataError;
use kiln_roots::RootsError;
use kiln_types::BuildId;
use kiln_types::error::ErrorCode;

use crate::BaseError;
use crate::snapshot::SealError;

/// One failed operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No build with this id.
    #[error("there is no build {id}")]
    NotFound {
        /// The id.
        id: BuildId,
    },
    /// A row could not be read or written.
    #[error("could not {action} build {id}")]
    Metadata {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The build.
        id: BuildId,
        /// The cause.
        #[source]
        source: MetadataError,
    },
    /// The builds of an earlier life of the daemon could not be found or ended.
    #[error("could not {action} of an earlier run")]
    Recover {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The log could not be used.
    #[error("could not {action} the log {}", path.display())]
    Log {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A base image could not be obtained.
    #[error("the image could not be obtained")]
    Base {
        /// The cause.
        #[source]
        source: Arc<BaseError>,
    },
    /// No build is started any more.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

impl BuildError {
    /// The code that clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } => ErrorCode::BuildNotFound,
            Self::Metadata { source, .. } => source.code(),
            Self::Base { source } => source.code(),
            Self::Log { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                ErrorCode::StorageFull
            }
            Self::Log { .. } | Self::Recover { .. } | Self::ShuttingDown => ErrorCode::Internal,
        }
    }
}

/// The code of an error that ends a build: a full disk wherever it was met, else what the outermost
/// error says.
pub(crate) fn code_of(error: &(dyn Error + 'static)) -> ErrorCode {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let full = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        if error.downcast_ref::<io::Error>().is_some_and(full)
            || error.downcast_ref::<MetadataError>().is_some_and(MetadataError::is_storage_full)
        {
            return ErrorCode::StorageFull;
        }
        cause = error.source();
    }
    None.or_else(|| error.downcast_ref().map(BaseError::code))
        .or_else(|| error.downcast_ref().map(ImagesError::code))
        .or_else(|| error.downcast_ref().map(SealError::code))
        .or_else(|| error.downcast_ref().map(MetadataError::code))
        .or_else(|| error.downcast_ref().map(RootsError::code))
        .unwrap_or(ErrorCode::Internal)
}

/// An error with all its causes, one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent wrappers show their cause's own words.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
