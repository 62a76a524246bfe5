//! The JSON messages of version 1. Members are frozen with the version: unknown ones are an error.

use serde::{Deserialize, Serialize};

use crate::{Failure, Text};

/// What the host asks for; opens a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Run a program. Replies: `started`, then `Data`, then `exited`.
    Exec(Box<ExecRequest>),
    /// Read a regular file. Replies: `opened`, then `Data` on [`crate::Channel::Output`], then `done`.
    Read {
        /// Where a relative path starts.
        cwd: Text,
        /// The file; symbolic links are followed.
        path: Text,
    },
    /// Write a whole file. Replies: `ready`; after `Data` and `End` on [`crate::Channel::Input`],
    /// `done`.
    Write {
        /// Where a relative path starts.
        cwd: Text,
        /// The file; symbolic links are followed, parents are made.
        path: Text,
        /// Permission bits; those of the old file, or 0644, when absent.
        mode: Option<u32>,
    },
    /// List a directory. Replies: JSON [`Entry`] values, one a line, as `Data` on
    /// [`crate::Channel::Output`], by name; then `done`.
    List {
        /// Where a relative path starts.
        cwd: Text,
        /// The directory; symbolic links are followed.
        path: Text,
    },
    /// Describe a file, not following a symbolic link. Replies: `entry`.
    Stat {
        /// Where a relative path starts.
        cwd: Text,
        /// The file.
        path: Text,
    },
    /// Make a directory and its parents. Replies: `done`, also when it is there.
    Mkdir {
        /// Where a relative path starts.
        cwd: Text,
        /// The directory.
        path: Text,
        /// Permission bits of a directory that is made; 0755 when absent.
        mode: Option<u32>,
    },
    /// Remove a file, a symbolic link or a directory. Replies: `done`.
    Remove {
        /// Where a relative path starts.
        cwd: Text,
        /// What to remove; a symbolic link is removed itself.
        path: Text,
        /// Remove a directory with all that is in it.
        recursive: bool,
    },
    /// Write all that is dirty to the guest's disks. Replies: `done`.
    Sync {},
    /// End everything in the sandbox. Replies: `done`, just before the agent ends.
    Shutdown {
        /// How long processes may take to end after SIGTERM, before SIGKILL.
        grace_ms: u64,
    },
}

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Program and arguments. A program without a slash is searched in `PATH` of `env`.
    pub argv: Vec<Text>,
    /// The complete environment; `HOME`, `USER` and `LOGNAME` are added when absent.
    pub env: Vec<(Text, Text)>,
    /// Working directory; `/` when absent. It must be there.
    pub cwd: Option<Text>,
    /// `name`, `uid`, `name:group` or `uid:gid`; the superuser when absent.
    pub user: Option<String>,
    /// Run on a terminal of this size.
    pub pty: Option<PtySize>,
    /// Kill the process, its group and its descendants after this time.
    pub timeout_ms: Option<u64>,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PtySize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// What the host says on a stream that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Control {
    /// The terminal has a new size.
    Resize(PtySize),
    /// Send a signal to the process group.
    Signal {
        /// Its number on Linux.
        signal: i32,
    },
    /// Kill the process, its group and its descendants.
    Kill {},
    /// Give up a `Write`: the old file stays.
    Abort {},
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// The program runs.
    Started {
        /// Its process id in the guest.
        pid: u32,
    },
    /// The file is open.
    Opened {
        /// Its size at that moment; 0 also for files that do not know theirs (`/proc`).
        size: u64,
        /// Permission bits.
        mode: u32,
    },
    /// The file can be written.
    Ready {},
    /// Final: the program has ended and all its output was sent.
    Exited {
        /// Its exit code; 128 + n when signal n ended it.
        code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Whether the time-out ended it.
        timed_out: bool,
    },
    /// Final: the description asked for.
    Entry {
        /// The file.
        entry: Entry,
    },
    /// Final: done, and nothing to tell.
    Done {},
    /// Final: not done.
    Failed {
        /// Why.
        failure: Failure,
    },
}

impl Reply {
    /// Whether the stream has ended with this reply.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Started { .. } | Self::Opened { .. } | Self::Ready {})
    }
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The last component of its path.
    pub name: Text,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, whole seconds since 1970.
    pub modified: i64,
    /// What a symbolic link points to.
    pub target: Option<Text>,
}
