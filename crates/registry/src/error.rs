//! What a registry, or the way to it, did not do.

use std::fmt;
use std::path::PathBuf;

use kiln_images::ImagesError;
use kiln_images::oci::DocumentError;
use kiln_types::error::ErrorCode;
use kiln_types::{Digest, Reference};

/// What was asked of whom: every error says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The host.
    pub host: String,
    /// The repository there.
    pub repository: String,
    /// `manifest 12`, `config sha256:…`, `layer sha256:…`.
    pub what: String,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}/{}", self.what, self.host, self.repository)
    }
}

/// One failed operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The configuration has a value that cannot be used.
    #[error("the registry configuration `{field}` is `{value}`: {problem}")]
    Config {
        /// The key.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, and what is right.
        problem: &'static str,
    },
    /// The Docker configuration could not be read.
    #[error("could not read the Docker configuration {}", path.display())]
    DockerConfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file of certificates could not be read.
    #[error("could not read the certificates {}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP client could not be set up.
    #[error("could not set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// No answer, also after further attempts.
    #[error("could not get {asked}")]
    Transport {
        /// What was asked.
        asked: Box<Asked>,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The body ended too early, also after further attempts.
    #[error("{asked} ended after {found} of {expected} bytes")]
    CutOff {
        /// What was asked.
        asked: Box<Asked>,
        /// Bytes that came.
        found: u64,
        /// Bytes that were announced.
        expected: u64,
    },
    /// The body came so slowly that it would never have ended, also in further attempts.
    #[error("{asked} came too slowly: {found} bytes in {seconds} s")]
    TooSlow {
        /// What was asked.
        asked: Box<Asked>,
        /// Bytes that came.
        found: u64,
        /// The time in which they came.
        seconds: u64,
    },
    /// The registry has no such thing.
    #[error("{asked} does not exist (status 404)")]
    NotFound {
        /// What was asked.
        asked: Box<Asked>,
    },
    /// The registry does not give it to us.
    #[error("{asked} was refused with status {status}: {problem}")]
    Denied {
        /// What was asked.
        asked: Box<Asked>,
        /// 401 or 403.
        status: u16,
        /// What to do.
        problem: String,
    },
    /// Any other status.
    #[error("{asked} was answered with status {status}{detail}")]
    Status {
        /// What was asked.
        asked: Box<Asked>,
        /// The status.
        status: u16,
        /// What the registry said about it, with a colon before it, or nothing.
        detail: String,
    },
    /// The server asks for a longer pause than the configuration allows.
    #[error(
        "{asked} was answered with status {status} and the wish to wait {seconds} s, which is more than `max_retry_after_ms` allows"
    )]
    Throttled {
        /// What was asked.
        asked: Box<Asked>,
        /// 429 or 503.
        status: u16,
        /// The pause that it wants, in seconds.
        seconds: u64,
    },
    /// A redirect that is not followed.
    #[error("{asked} was redirected, which is not followed: {problem}")]
    Redirect {
        /// What was asked.
        asked: Box<Asked>,
        /// Why.
        problem: String,
    },
    /// No token was issued.
    #[error("no token for {asked} from {realm}: {problem}")]
    Token {
        /// What was asked.
        asked: Box<Asked>,
        /// Host of the token endpoint.
        realm: String,
        /// Why.
        problem: String,
    },
    /// A body is larger than allowed or announced.
    #[error("{asked} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked.
        asked: Box<Asked>,
        /// The limit.
        limit: u64,
    },
    /// A body has another digest than it was asked by. Nothing of it is kept.
    #[error("{asked} came with digest {found}, not {expected}")]
    WrongDigest {
        /// What was asked.
        asked: Box<Asked>,
        /// The digest that it was asked by.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// A body has another size than its descriptor says.
    #[error("{asked} has {found} bytes, not {expected} as its descriptor says")]
    WrongSize {
        /// What was asked.
        asked: Box<Asked>,
        /// The size in the descriptor.
        expected: u64,
        /// The size of what came.
        found: u64,
    },
    /// A manifest, index or config is not usable.
    #[error("{asked} is not usable")]
    Document {
        /// What was asked.
        asked: Box<Asked>,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// Something else than an image that can be run.
    #[error("{asked} is not supported: {problem}")]
    Unsupported {
        /// What was asked.
        asked: Box<Asked>,
        /// What it is.
        problem: String,
    },
    /// The image is not made for this host.
    #[error("{asked} is not made for {host}; it is there for {}", available.join(", "))]
    NoPlatform {
        /// What was asked.
        asked: Box<Asked>,
        /// The platform of this host.
        host: String,
        /// What there is instead.
        available: Vec<String>,
    },
    /// Mirrors and registry all failed; `source` is the registry's answer.
    #[error("could not get {reference}; before the registry itself, {tried}")]
    AllSources {
        /// The reference.
        reference: String,
        /// What each mirror answered.
        tried: String,
        /// What the last source answered.
        #[source]
        source: Box<RegistryError>,
    },
    /// The image store refused.
    #[error("could not store {reference}")]
    Store {
        /// The reference.
        reference: String,
        /// The cause.
        #[source]
        source: Box<ImagesError>,
    },
    /// Another layer of the same image failed first.
    #[error("the pull was ended because another layer failed")]
    Cancelled,
}

impl RegistryError {
    /// The code that clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } => ErrorCode::ImageNotFound,
            Self::Config { .. }
            | Self::DockerConfig { .. }
            | Self::Certificates { .. }
            | Self::Client(_) => ErrorCode::Internal,
            Self::AllSources { source, .. } => source.code(),
            Self::Store { source, .. } => match source.code() {
                // What a registry sent is no fault of whoever asked for it.
                ErrorCode::InvalidRequest => ErrorCode::RegistryError,
                code => code,
            },
            _ => ErrorCode::RegistryError,
        }
    }

    pub(crate) fn store(reference: &Reference, source: ImagesError) -> Self {
        Self::Store { reference: reference.to_string(), source: Box::new(source) }
    }

    /// Whether another source of the same content may do better.
    pub(crate) fn blames_source(&self) -> bool {
        match self {
            Self::Config { .. }
            | Self::DockerConfig { .. }
            | Self::Certificates { .. }
            | Self::Client(_)
            | Self::NoPlatform { .. }
            | Self::Unsupported { .. }
            | Self::Cancelled => false,
            Self::Store { source, .. } => matches!(
                source.as_ref(),
                ImagesError::ReadLayer { source, .. } if source.is_bad_layer()
            ),
            _ => true,
        }
    }

    /// The error and its causes in one line, for logs.
    pub(crate) fn one_line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }
}
