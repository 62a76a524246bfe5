//! The writing end.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use kiln_types::BuildId;
use kiln_types::event::{BuildEvent, BuildEventKind};
use tokio::sync::watch;

use super::{Progress, line};

/// Writes the log of one build. Dropping it ends the log for its readers.
#[derive(Debug)]
pub(crate) struct LogWriter {
    id: BuildId,
    path: PathBuf,
    state: Mutex<State>,
    open: Arc<Mutex<HashMap<BuildId, watch::Receiver<Progress>>>>,
}

#[derive(Debug)]
struct State {
    file: File,
    seq: u64,
    limit: u64,
    progress: watch::Sender<Progress>,
    /// Whether output is dropped because the log has reached its limit.
    full: bool,
    /// Whether the file took no more; said once.
    broken: bool,
}

impl LogWriter {
    pub(super) fn new(
        id: BuildId,
        path: PathBuf,
        file: File,
        limit: u64,
        progress: watch::Sender<Progress>,
        open: Arc<Mutex<HashMap<BuildId, watch::Receiver<Progress>>>>,
    ) -> Self {
        let state = State { file, seq: 0, limit, progress, full: false, broken: false };
        Self { id, path, state: Mutex::new(state), open }
    }

    /// Adds an event. A log that cannot be written (a full disk) does not end the build: its readers
    /// get the end from the build's row.
    pub(crate) fn write(&self, kind: BuildEventKind) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(kind, BuildEventKind::Output { .. }) {
            if state.full {
                return;
            }
            if state.progress.borrow().bytes >= state.limit {
                state.full = true;
                let message =
                    format!("the log has {} MiB; further output is not kept", state.limit >> 20);
                self.append(&mut state, BuildEventKind::Info { message });
                return;
            }
        }
        self.append(&mut state, kind);
    }

    /// Adds a remark.
    pub(crate) fn info(&self, message: impl Into<String>) {
        let message = message.into().replace(['\n', '\r'], " ");
        self.write(BuildEventKind::Info { message });
    }

    fn append(&self, state: &mut State, kind: BuildEventKind) {
        if state.broken {
            return;
        }
        let line = line(&BuildEvent { seq: state.seq, time: Timestamp::now(), kind });
        if let Err(error) = state.file.write_all(&line) {
            // Half a line may stand there now, which no reader is told of.
            state.broken = true;
            let path = self.path.display();
            tracing::warn!(build = %self.id, %path, %error, "the log of the build is cut off");
            return;
        }
        state.seq += 1;
        state.progress.send_modify(|progress| progress.bytes += line.len() as u64);
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.progress.send_modify(|progress| progress.ended = true);
    }
}
