//! Files of a running sandbox.
//!
//! `GET …/files?path=` reads, `PUT …/files?path=&mode=` writes (parents are made), `DELETE …/files?path=`
//! removes (`recursive=true` for directories), `GET …/files/list?path=` lists, `GET …/files/stat?path=`
//! describes, `POST …/files/mkdir?path=` makes a directory and its parents.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The query of all file routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct FileQuery {
    /// Path inside the sandbox; relative ones start at the working directory.
    pub path: String,
    /// Permission bits in octal (`644`), for writing and making directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Remove a directory with all that is in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, fifo or socket.
    Other,
}

/// One file, described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileEntry {
    /// The last component of the path, invalid UTF-8 replaced.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub modified: i64,
    /// What a symbolic link points to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// The entries of a directory, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileList {
    /// The entries.
    pub entries: Vec<FileEntry>,
}
