//! Lets the disk work on a large file while it is still being written.
//!
//! The kernel begins to write back on its own only after seconds, so that all of a large file would
//! be left to the sync at its end.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// So much is written before the disk is asked to take it. Smaller files need no help.
const STRETCH: u64 = 16 << 20;

/// A thread that syncs a file again and again while it grows.
#[derive(Debug, Default)]
pub(super) struct Writeback {
    asked: u64,
    worker: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
}

impl Writeback {
    /// Says that `file` has `written` bytes now.
    pub(super) fn progress(&mut self, file: &File, written: u64) {
        if written - self.asked < STRETCH {
            return;
        }
        self.asked = written;
        if self.worker.is_none() {
            self.worker = start(file).ok();
        }
        if let Some((requests, _)) = &self.worker {
            // One that is busy still takes this stretch with the next one.
            let _ = requests.try_send(());
        }
    }

    /// Ends the thread. An error that it was told is told to nobody else, so it counts as the file's.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some((requests, worker)) = self.worker.take() else { return Ok(()) };
        drop(requests);
        worker.join().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs it panicked")))
    }
}

impl Drop for Writeback {
    /// A writer that gives up leaves nothing: as long as the thread has the file open, it takes its room.
    fn drop(&mut self) {
        let _given_up = self.finish();
    }
}

/// Without the thread everything is as right, only slower.
fn start(file: &File) -> io::Result<(SyncSender<()>, JoinHandle<io::Result<()>>)> {
    let file = file.try_clone()?;
    let (requests, incoming) = sync_channel(1);
    let worker = std::thread::Builder::new()
        .name("kiln-writeback".to_owned())
        .spawn(move || work(&file, &incoming))?;
    Ok((requests, worker))
}

fn work(file: &File, incoming: &Receiver<()>) -> io::Result<()> {
    incoming.iter().try_for_each(|()| file.sync_data())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_large_files_get_a_thread() {
        let mut file = tempfile::tempfile().expect("temporary file");
        let mut writeback = Writeback::default();
        file.write_all(b"x").expect("write");
        writeback.progress(&file, 1);
        assert!(writeback.worker.is_none());
        writeback.progress(&file, STRETCH);
        assert!(writeback.worker.is_some());
        writeback.progress(&file, 3 * STRETCH);
        writeback.finish().expect("it can be synced");
        writeback.finish().expect("and ended twice");
    }

    #[test]
    fn what_the_disk_says_is_not_lost() {
        let (pipe, _writer) = io::pipe().expect("pipe");
        let file = File::from(std::os::fd::OwnedFd::from(pipe));
        let mut writeback = Writeback::default();
        writeback.progress(&file, STRETCH);
        // A pipe cannot be synced.
        assert!(writeback.finish().is_err());
    }
}
