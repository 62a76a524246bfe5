//! The driver's directory: a directory for each sandbox that runs, with its agent's socket in it.
//!
//! What is here is of use only while its processes live, so nothing is written with a sync: after a
//! crash of the host the boot id tells that it is worth nothing.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use kiln_types::SandboxId;
use serde::{Deserialize, Serialize};

use crate::runtime::{RuntimeError, Slot};

const SOCKET: &str = "agent.sock";
const RECORD: &str = "state.json";

/// What is known about a sandbox that runs, for a later life of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// PID 1, as the daemon sees it.
    pub(super) pid: u32,
    /// When it started, in clock ticks since the boot (field 22 of `/proc/PID/stat`): together with the
    /// number and the boot it names the process for ever.
    pub(super) started: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub(super) boot: String,
    pub(super) slot: u32,
    /// The name of its control group.
    pub(super) group: String,
    /// Whether it has a network.
    pub(super) network: bool,
}

/// The directory.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
}

impl StateDir {
    pub(super) fn open(path: &Path) -> Result<Self, RuntimeError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("make the directory", path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// A sandbox's directory.
    pub(super) fn of(&self, id: SandboxId) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// Where a sandbox's agent listens.
    pub(super) fn socket(&self, id: SandboxId) -> PathBuf {
        self.of(id).join(SOCKET)
    }

    /// Makes a sandbox's directory and the socket that its agent gets. What an earlier life of the
    /// sandbox has left there is replaced.
    pub(super) fn make(&self, id: SandboxId) -> Result<OwnedFd, RuntimeError> {
        self.remove(id)?;
        let dir = self.of(id);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(failed("make the directory", &dir))?;
        let handle = File::open(&dir).map_err(failed("open", &dir))?;
        // A path of any length fits into a socket's address this way.
        kiln_failpoint::reach("sandbox.directory-made")
            .map_err(failed("make the socket in", &dir))?;
        let short = format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd());
        let socket = UnixListener::bind(short).map_err(failed("bind", &dir.join(SOCKET)))?;
        Ok(socket.into())
    }

    /// Writes the record of a sandbox.
    pub(super) fn write(&self, id: SandboxId, record: &Record) -> Result<(), RuntimeError> {
        let path = self.of(id).join(RECORD);
        let draft = path.with_extension("new");
        let bytes = serde_json::to_vec(record)
            .map_err(|error| failed("encode", &path)(io::Error::other(error)))?;
        fs::write(&draft, bytes).map_err(failed("write", &draft))?;
        kiln_failpoint::reach("sandbox.state-drafted").map_err(failed("write", &path))?;
        fs::rename(&draft, &path).map_err(failed("write", &path))
    }

    /// The record of a sandbox, if it has a legible one.
    pub(super) fn read(&self, id: SandboxId) -> Option<Record> {
        let bytes = fs::read(self.of(id).join(RECORD)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Removes a sandbox's directory. Fine when there is none.
    pub(super) fn remove(&self, id: SandboxId) -> Result<(), RuntimeError> {
        let dir = self.of(id);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &dir)(error))
            }
            _ => Ok(()),
        }
    }

    /// The sandboxes that have a directory.
    pub(super) fn list(&self) -> Result<Vec<SandboxId>, RuntimeError> {
        let entries = fs::read_dir(&self.path).map_err(failed("list", &self.path))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }
}

impl Record {
    pub(super) fn slot(&self) -> Slot {
        Slot(self.slot)
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |source| RuntimeError::State { action, path, source }
}
