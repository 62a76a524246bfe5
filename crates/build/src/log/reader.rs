//! The reading end.

use std::collections::VecDeque;
use std::io::SeekFrom;
use std::path::PathBuf;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use kiln_types::event::{BuildEvent, BuildEventKind};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::watch;

use super::Progress;

/// How much is read at once.
const CHUNK: u64 = 64 * 1024;

/// The events of the log at `path` from number `from` on, to its end. `progress` says how far it is
/// written; `None`: to the end of the file. A log that ends without a `finished` event gets `last`.
pub(crate) fn follow(
    path: PathBuf,
    progress: Option<watch::Receiver<Progress>>,
    from: u64,
    last: BoxFuture<'static, Option<BuildEventKind>>,
) -> impl Stream<Item = BuildEvent> + Send + 'static {
    let reader = Reader {
        path,
        progress,
        from,
        file: None,
        position: 0,
        partial: Vec::new(),
        ready: VecDeque::new(),
        seen: 0,
        finished: false,
        ended: false,
        last: Some(last),
    };
    futures_util::stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((event, reader))
    })
}

struct Reader {
    path: PathBuf,
    progress: Option<watch::Receiver<Progress>>,
    from: u64,
    file: Option<File>,
    position: u64,
    partial: Vec<u8>,
    ready: VecDeque<BuildEvent>,
    /// How many events the log had so far.
    seen: u64,
    /// Whether the last event was seen.
    finished: bool,
    /// Whether there is no more to read.
    ended: bool,
    last: Option<BoxFuture<'static, Option<BuildEventKind>>>,
}

impl Reader {
    async fn next(&mut self) -> Option<BuildEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.finished {
                return None;
            }
            if self.ended {
                let kind = self.last.take()?.await?;
                self.finished = true;
                let event = BuildEvent { seq: self.seen, time: Timestamp::now(), kind };
                return (event.seq >= self.from).then_some(event);
            }
            match self.available().await {
                None => self.ended = true,
                Some(limit) => {
                    if let Err(error) = self.read(limit).await {
                        let path = self.path.display();
                        tracing::warn!(%path, %error, "a log could not be read");
                        self.ended = true;
                    }
                }
            }
        }
    }

    /// Waits until there is something to read and says up to where. `None` at the end.
    async fn available(&mut self) -> Option<u64> {
        let Some(progress) = &mut self.progress else {
            return Some(u64::MAX);
        };
        let position = self.position;
        let found = progress.wait_for(|found| found.bytes > position || found.ended).await;
        // A writer that is gone has ended its log.
        let found = found.map_or(Progress { bytes: 0, ended: true }, |found| *found);
        (found.bytes > position).then_some(found.bytes)
    }

    async fn read(&mut self, limit: u64) -> std::io::Result<()> {
        if self.file.is_none() {
            let mut file = File::open(&self.path).await?;
            file.seek(SeekFrom::Start(self.position)).await?;
            self.file = Some(file);
        }
        let file = self.file.as_mut().expect("it was just opened");
        let want = (limit - self.position).min(CHUNK);
        let before = self.partial.len();
        let count = file.take(want).read_to_end(&mut self.partial).await?;
        self.position += count as u64;
        if count == 0 {
            self.ended = true;
        }
        let Some(end) = self.partial[before..].iter().rposition(|byte| *byte == b'\n') else {
            return Ok(());
        };
        let rest = self.partial.split_off(before + end + 1);
        let lines = std::mem::replace(&mut self.partial, rest);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<BuildEvent>(line) {
                Ok(event) => {
                    self.seen = event.seq + 1;
                    self.finished |= matches!(event.kind, BuildEventKind::Finished { .. });
                    if event.seq >= self.from {
                        self.ready.push_back(event);
                    }
                }
                Err(error) => {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "a line of a log is not an event");
                }
            }
        }
        Ok(())
    }
}
