//! Slots that are made ready before anybody asks for them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_types::SandboxId;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::host::Host;
use super::prepared::{Prepared, prepare};

/// How long to wait after a failure before the next attempt.
const PAUSE: Duration = Duration::from_secs(5);

/// The pool. It keeps itself full in the background.
#[derive(Debug)]
pub(super) struct Pool {
    shelf: Arc<Shelf>,
    filler: Mutex<Option<JoinHandle<()>>>,
}

/// What the pool shares with the task that fills it.
#[derive(Debug)]
struct Shelf {
    ready: Mutex<VecDeque<Prepared>>,
    /// There is room, or the end is near.
    changed: Notify,
    closed: AtomicBool,
}

impl Pool {
    /// A pool that keeps `size` slots ready.
    pub(super) fn start(host: &Arc<Host>, size: usize) -> Self {
        let shelf = Arc::new(Shelf {
            ready: Mutex::default(),
            changed: Notify::new(),
            closed: AtomicBool::new(false),
        });
        let filler =
            (size > 0).then(|| tokio::spawn(fill(Arc::clone(host), Arc::clone(&shelf), size)));
        Self { shelf, filler: Mutex::new(filler) }
    }

    /// A slot that is ready, if there is one. It is replaced after [`Self::refill`]: the work that it
    /// takes to prepare a slot would only slow down the start of the sandbox that gets this one.
    pub(super) async fn take(&self, host: &Arc<Host>) -> Option<Prepared> {
        loop {
            let prepared = self.shelf.lock().pop_front()?;
            if prepared.is_usable() {
                return Some(prepared);
            }
            prepared.discard(host).await;
        }
    }

    /// Replaces what was taken, in the background.
    pub(super) fn refill(&self) {
        self.shelf.changed.notify_one();
    }

    /// How many are ready.
    pub(super) fn len(&self) -> usize {
        self.shelf.lock().len()
    }

    /// Stops filling, and gives everything back.
    pub(super) async fn drain(&self, host: &Arc<Host>) {
        self.shelf.close();
        let filler = self.filler.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(filler) = filler
            && let Err(error) = filler.await
        {
            tracing::warn!(%error, "the task that makes slots ready was lost");
        }
        loop {
            let Some(prepared) = self.shelf.lock().pop_front() else { return };
            prepared.discard(host).await;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shelf.close();
    }
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Prepared>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_one();
    }
}

async fn fill(host: Arc<Host>, shelf: Arc<Shelf>, size: usize) {
    while !shelf.closed.load(Ordering::Acquire) {
        if shelf.lock().len() >= size {
            shelf.changed.notified().await;
            continue;
        }
        // The id is for messages only; the sandbox that gets the slot has its own.
        match prepare(&host, SandboxId::new(), None, true).await {
            Ok(prepared) => shelf.lock().push_back(prepared),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no slot is ready");
                let again = tokio::time::timeout(PAUSE, shelf.changed.notified()).await;
                drop(again);
            }
        }
    }
}
