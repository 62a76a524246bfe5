//! Why the daemon could not start or had to end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use kiln_metadata::MetadataError;

use crate::config::ConfigError;

/// A failure of the daemon as a whole; failures of single requests never get here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Another daemon uses the data directory.
    #[error(
        "the data directory {} is in use by another kiln daemon{}; stop it, or start this one with another `data_dir`",
        data_dir.display(),
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The directory.
        data_dir: PathBuf,
        /// The other daemon, when it is known.
        pid: Option<u32>,
    },
    /// The data directory could not be used.
    #[error("could not {action} {}", path.display())]
    DataDir {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The database is gone, and what it spoke of is not.
    #[error(
        "the database {} is missing or empty, but there are images beside it; put a backup of it there, or start with another `data_dir`. Nothing was changed",
        path.display()
    )]
    DatabaseLost {
        /// The database's file.
        path: PathBuf,
    },
    /// The configuration has a value that cannot be used.
    #[error("the configuration is not usable")]
    Config(#[from] ConfigError),
    /// The TCP address could not be listened on.
    #[error("could not listen on {address}")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The Unix socket could not be listened on.
    #[error("could not listen on the socket {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Signals could not be waited for.
    #[error("could not wait for signals")]
    Signals(#[source] io::Error),
    /// The first API key could not be made.
    #[error("could not make the API key file {}", path.display())]
    ApiKey {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The database failed.
    #[error("the metadata store is not usable")]
    Metadata(#[from] MetadataError),
    /// A part below could not be set up.
    #[error("could not set up {part}")]
    Part {
        /// The part: `the image store`, `the sandbox runtime`.
        part: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ServerError {
    /// Wraps the failure of a part for `map_err`.
    pub(crate) fn part<E>(part: &'static str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Self::Part { part, source: source.into() }
    }
}
