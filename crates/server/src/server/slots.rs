//! Slots of sandboxes, as the database hands them out.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_metadata::{MetadataError, MetadataStore};
use kiln_runtime::{BoxError, Slot, Slots};
use tokio_util::sync::CancellationToken;

/// The runtime's view of the slots' table.
///
/// After a crash, a sandbox without a row may still run in a slot that nobody has. So no slot is handed
/// out before [`Self::open`], which is called when such sandboxes are gone.
#[derive(Debug)]
pub(super) struct MetadataSlots {
    metadata: Arc<dyn MetadataStore>,
    opened: CancellationToken,
}

impl MetadataSlots {
    pub(super) fn new(metadata: Arc<dyn MetadataStore>) -> Self {
        Self { metadata, opened: CancellationToken::new() }
    }

    /// Frees the slots that no sandbox has, and begins to hand slots out.
    pub(super) async fn open(&self) -> Result<(), MetadataError> {
        let released = self.metadata.release_unused_slots().await?;
        tracing::debug!(released, "released slots that nobody uses");
        self.opened.cancel();
        Ok(())
    }
}

#[async_trait]
impl Slots for MetadataSlots {
    async fn reserve(&self) -> Result<Slot, BoxError> {
        self.opened.cancelled().await;
        Ok(Slot(self.metadata.reserve_slot(Slot::COUNT).await?))
    }

    async fn release(&self, slot: Slot) -> Result<(), BoxError> {
        Ok(self.metadata.release_slot(slot.0).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kiln_metadata::SqliteStore;

    use super::*;

    #[tokio::test]
    async fn no_slot_is_handed_out_before_leftovers_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path().join("kiln.sqlite")).await.unwrap();
        let store: Arc<dyn MetadataStore> = Arc::new(store);
        // Two slots of an earlier life of the daemon.
        for slot in 0..2 {
            assert_eq!(store.reserve_slot(Slot::COUNT).await.unwrap(), slot);
        }
        let slots = Arc::new(MetadataSlots::new(store));
        let mut waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.reserve().await.unwrap() }
        });
        let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
        assert!(early.is_err(), "{early:?}");
        slots.open().await.unwrap();
        assert_eq!(waiting.await.unwrap(), Slot(0));
        slots.release(Slot(0)).await.unwrap();
        assert_eq!(slots.reserve().await.unwrap(), Slot(0));
    }
}
