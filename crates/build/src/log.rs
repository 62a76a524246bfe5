//! Logs of builds: numbered events in a file, written by the build, read by anybody at any time.
//!
//! A build never waits for a reader: a reader reads the file, and is only told how far it may.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_types::BuildId;
use kiln_types::event::{BuildEvent, BuildEventKind};
use tokio::sync::watch;

mod reader;
mod tail;
mod writer;

pub(crate) use reader::follow;
pub(crate) use tail::{Decoder, Tail};
pub(crate) use writer::LogWriter;

use crate::BuildError;

/// How far a log has been written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of whole events in the file.
    pub(crate) bytes: u64,
    /// Whether nothing follows.
    pub(crate) ended: bool,
}

/// The logs below one directory. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    dir: PathBuf,
    limit: u64,
    open: Arc<Mutex<HashMap<BuildId, watch::Receiver<Progress>>>>,
}

impl Logs {
    pub(crate) fn new(dir: PathBuf, limit: u64) -> Self {
        Self { dir, limit, open: Arc::default() }
    }

    /// Begins the log of a build.
    pub(crate) fn create(&self, id: BuildId) -> Result<LogWriter, BuildError> {
        let dir = self.dir.join(id.to_string());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| BuildError::Log { action: "make", path: dir.clone(), source })?;
        let path = self.path(id);
        let file =
            OpenOptions::new().append(true).create_new(true).open(&path).map_err(|source| {
                self.remove(id);
                BuildError::Log { action: "make", path: path.clone(), source }
            })?;
        let (sender, receiver) = watch::channel(Progress::default());
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, receiver);
        Ok(LogWriter::new(id, path, file, self.limit, sender, Arc::clone(&self.open)))
    }

    /// The file of a build's log.
    pub(crate) fn path(&self, id: BuildId) -> PathBuf {
        self.dir.join(id.to_string()).join("log.jsonl")
    }

    /// The builds that have a directory.
    pub(crate) fn list(&self) -> io::Result<Vec<BuildId>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        for entry in entries {
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<BuildId>().ok()));
        }
        Ok(found)
    }

    /// Removes the log of a build that was not to be.
    pub(crate) fn remove(&self, id: BuildId) {
        if let Err(error) = fs::remove_dir_all(self.dir.join(id.to_string())) {
            tracing::warn!(build = %id, %error, "a log was not removed");
        }
    }

    /// How far the log of a running build is; `None` when the build does not run.
    pub(crate) fn progress(&self, id: BuildId) -> Option<watch::Receiver<Progress>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Ends a log that an earlier process left: a half-written event is cut off, `last` is added.
    pub(crate) fn finish(&self, id: BuildId, last: BuildEventKind) -> io::Result<()> {
        let path = self.path(id);
        let mut text = match fs::read(&path) {
            Ok(text) => text,
            // It never began.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        text.truncate(whole);
        let seq = text.split_inclusive(|byte| *byte == b'\n').count() as u64;
        if text
            .split(|byte| *byte == b'\n')
            .rev()
            .find(|line| !line.is_empty())
            .is_some_and(is_last)
        {
            return Ok(());
        }
        let mut file = OpenOptions::new().append(true).open(&path)?;
        file.set_len(whole as u64)?;
        file.write_all(&line(&BuildEvent { seq, time: jiff::Timestamp::now(), kind: last }))
    }
}

/// An event as it stands in a log, newline included.
fn line(event: &BuildEvent) -> Vec<u8> {
    let mut line = serde_json::to_vec(event).expect("an event has a JSON form");
    line.push(b'\n');
    line
}

fn is_last(line: &[u8]) -> bool {
    let event: Option<BuildEvent> = serde_json::from_slice(line).ok();
    event.is_some_and(|event| matches!(event.kind, BuildEventKind::Finished { .. }))
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};
    use kiln_types::api::BuildStatus;
    use kiln_types::event::OutputStream;

    use super::*;

    fn end() -> BuildEventKind {
        BuildEventKind::Finished { status: BuildStatus::Succeeded, image: None, failure: None }
    }

    #[tokio::test]
    async fn output_above_the_limit_is_dropped_and_the_log_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned(), 4096);
        let id = BuildId::new();
        let log = logs.create(id).unwrap();
        let live = follow(logs.path(id), logs.progress(id), 0, async { None }.boxed());
        for step in 0..100 {
            let text = "x".repeat(100);
            log.write(BuildEventKind::Output { step, stream: OutputStream::Stdout, text });
        }
        log.info("two\nlines");
        log.write(end());
        drop(log);
        assert!(logs.progress(id).is_none());
        let events: Vec<BuildEvent> = live.collect().await;
        assert!(events.len() < 40, "{}", events.len());
        assert!(events.iter().zip(0..).all(|(event, number)| event.seq == number));
        let message = |message: &str| BuildEventKind::Info { message: message.to_owned() };
        let [.., full, remark, last] = &events[..] else { panic!("{events:?}") };
        assert!(
            matches!(&full.kind, BuildEventKind::Info { message } if message.contains("not kept"))
        );
        assert_eq!((&remark.kind, &last.kind), (&message("two lines"), &end()));
    }

    #[tokio::test]
    async fn ending_a_log_twice_adds_one_end() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned(), 4096);
        let id = BuildId::new();
        logs.finish(id, end()).unwrap();
        logs.create(id).unwrap().info("begun");
        for _ in 0..2 {
            logs.finish(id, end()).unwrap();
            let log = follow(logs.path(id), None, 0, async { None }.boxed());
            let events: Vec<BuildEvent> = log.collect().await;
            assert_eq!(events.len(), 2);
            assert_eq!((events[1].seq, &events[1].kind), (1, &end()));
        }
    }
}
