//! Which slots are in use on this host, as far as this daemon knows.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::runtime::Slot;

/// How long the kernel may take to disconnect a slot before somebody who wants it gives up.
const CLOSING_DEADLINE: Duration = Duration::from_secs(10);

/// The slots.
#[derive(Debug, Default)]
pub(super) struct SlotTable {
    uses: Mutex<BTreeMap<Slot, Use>>,
    freed: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// A sandbox runs in it, or it is prepared for one.
    Taken,
    /// What was in it has ended; its network is being removed.
    Closing,
}

impl SlotTable {
    /// Takes a slot; waits while it is being closed. `false` when somebody else has it.
    pub(super) async fn take(&self, slot: Slot) -> bool {
        let attempt = async {
            loop {
                let freed = self.freed.notified();
                let mut freed = pin!(freed);
                // From here on nothing is missed.
                freed.as_mut().enable();
                match self.try_take(slot) {
                    None => return true,
                    Some(Use::Taken) => return false,
                    Some(Use::Closing) => freed.await,
                }
            }
        };
        tokio::time::timeout(CLOSING_DEADLINE, attempt).await.unwrap_or(false)
    }

    /// Takes a slot if it is free at this moment.
    pub(super) fn take_if_free(&self, slot: Slot) -> bool {
        self.try_take(slot).is_none()
    }

    /// Takes a slot, or says what it is used for.
    fn try_take(&self, slot: Slot) -> Option<Use> {
        let mut uses = self.lock();
        let found = uses.get(&slot).copied();
        if found.is_none() {
            uses.insert(slot, Use::Taken);
        }
        found
    }

    /// Nothing is in the slot any more but its network.
    pub(super) fn close(&self, slot: Slot) {
        self.lock().insert(slot, Use::Closing);
    }

    /// Nothing at all is in the slot any more.
    pub(super) fn free(&self, slot: Slot) {
        self.lock().remove(&slot);
        self.freed.notify_waiters();
    }

    /// Waits until no slot is being closed.
    pub(super) async fn settle(&self) {
        loop {
            let freed = self.freed.notified();
            let mut freed = pin!(freed);
            freed.as_mut().enable();
            if !self.lock().values().any(|used| *used == Use::Closing) {
                return;
            }
            freed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Slot, Use>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_slot_is_given_to_one_at_a_time() {
        let table = SlotTable::default();
        assert!(table.take(Slot(1)).await);
        assert!(!table.take(Slot(1)).await);
        assert!(table.take(Slot(2)).await);
        table.free(Slot(1));
        assert!(!table.take_if_free(Slot(2)));
        assert!(table.take_if_free(Slot(1)));
        assert!(!table.take(Slot(1)).await);
    }

    #[tokio::test]
    async fn who_wants_a_closing_slot_gets_it_in_the_end() {
        let table = Arc::new(SlotTable::default());
        assert!(table.take(Slot(1)).await);
        table.close(Slot(1));
        let takers: Vec<_> = (0..3)
            .map(|_| {
                let table = Arc::clone(&table);
                tokio::spawn(async move { table.take(Slot(1)).await })
            })
            .collect();
        let settled = tokio::spawn({
            let table = Arc::clone(&table);
            async move { table.settle().await }
        });
        tokio::task::yield_now().await;
        table.free(Slot(1));
        settled.await.unwrap();
        let mut winners = 0;
        for taker in takers {
            winners += usize::from(taker.await.unwrap());
        }
        assert_eq!(winners, 1);
    }
}
