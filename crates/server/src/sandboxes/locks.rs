//! One lock per sandbox, for changes of its state. Commands and files never wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_types::SandboxId;
use tokio::sync::OwnedMutexGuard;

/// The locks that are held or waited for.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<HashMap<SandboxId, Arc<tokio::sync::Mutex<()>>>>);

impl Locks {
    /// Waits for the sandbox's lock.
    pub(crate) async fn lock(&self, id: SandboxId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // A lock that only the map knows is neither held nor waited for.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(id).or_default())
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_sandbox_waits_another_does_not() {
        let locks = Arc::new(Locks::default());
        let [first, second] = [SandboxId::new(), SandboxId::new()];
        let held = locks.lock(first).await;
        drop(locks.lock(second).await);
        let waiting = tokio::spawn({
            let locks = Arc::clone(&locks);
            async move { drop(locks.lock(first).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        waiting.await.unwrap();
        drop(locks.lock(second).await);
        assert!(locks.0.lock().unwrap().len() <= 1);
    }
}
