//! Why the agent could not do something, as the host can tell causes apart.

use serde::{Deserialize, Serialize};

/// The failing end of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Failure {
    /// A process did not start.
    Start {
        /// The cause, for programs.
        kind: StartErrorKind,
        /// The cause with names and values, for people.
        message: String,
    },
    /// A file operation failed.
    File {
        /// The cause, for programs.
        kind: FileErrorKind,
        /// The cause, for people, without the path that was asked for.
        message: String,
    },
    /// The agent does not do this (now).
    Refused {
        /// The cause, for people.
        message: String,
    },
}

/// Why a process did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StartErrorKind {
    /// The program is not there, or its interpreter is not.
    NotFound,
    /// The program is there and cannot be executed: no permission, a directory, an unknown format.
    NotExecutable,
    /// The working directory is not there.
    CwdNotFound,
    /// The working directory is not a directory or may not be entered.
    CwdNotUsable,
    /// No such user in the guest.
    UnknownUser,
    /// No such group in the guest.
    UnknownGroup,
    /// The process may not become that user.
    UserNotPermitted,
    /// An argument, a variable or the user has a form that no process can have.
    InvalidArgument,
    /// Arguments and environment are larger than the kernel accepts.
    TooBig,
    /// No terminal could be opened.
    NoTerminal,
    /// The sandbox is out of processes, memory or descriptors.
    ResourceLimit,
    /// The sandbox is shutting down.
    ShuttingDown,
    /// Anything else; the message has the system's words.
    Other,
}

/// Why a file operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileErrorKind {
    /// Nothing has this name.
    NotFound,
    /// The kernel forbids it.
    PermissionDenied,
    /// Something has this name already.
    AlreadyExists,
    /// A component that must be a directory is none.
    NotADirectory,
    /// A directory where a file is needed.
    IsADirectory,
    /// The directory still has entries.
    NotEmpty,
    /// A device, fifo or socket where a regular file is needed.
    NotARegularFile,
    /// The disk or the quota is full.
    NoSpace,
    /// The file is larger than the system or its limits allow.
    TooLarge,
    /// The file system is read-only.
    ReadOnly,
    /// Too many symbolic links.
    TooManyLinks,
    /// A name or path is too long.
    NameTooLong,
    /// In use, as a mount point or a running program.
    Busy,
    /// The path or an argument has a form that is not possible.
    InvalidArgument,
    /// The sandbox is out of memory or descriptors.
    ResourceLimit,
    /// The host gave up before the end.
    Aborted,
    /// Anything else; the message has the system's words.
    Other,
}
