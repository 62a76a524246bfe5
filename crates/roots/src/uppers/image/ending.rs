//! The ends of mounts that nobody waits for. The kernel takes its time over one: milliseconds on a quiet
//! host, many on a busy one, although the file system has nothing left to write.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// More than these at once make their owners wait.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Ending {
    worker: Mutex<Option<(SyncSender<OwnedFd>, JoinHandle<()>)>>,
}

impl Ending {
    /// Ends `mount`, soon.
    pub(super) fn end(&self, mount: OwnedFd) {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.is_none() {
            let (sender, mounts) = sync_channel::<OwnedFd>(MOST);
            let thread = std::thread::Builder::new()
                .name("kiln-disk-ends".to_owned())
                .spawn(move || mounts.into_iter().for_each(drop));
            // Without a thread each waits for itself.
            *worker = thread.ok().map(|thread| (sender, thread));
        }
        let sent = worker.as_ref().map(|(sender, _)| sender.try_send(mount));
        drop(worker);
        if let Some(Err(TrySendError::Full(mount) | TrySendError::Disconnected(mount))) = sent {
            drop(mount);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let worker = self.worker.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = worker {
            drop(sender);
            // A panic of it is told by itself.
            let _ended = thread.join();
        }
    }
}
