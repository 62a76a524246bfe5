//! Slots.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Fixture, sample};
use crate::MetadataError;

pub(super) async fn slots_run_out_and_come_back(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    assert!(matches!(store.reserve_slot(0).await, Err(MetadataError::NoSlot { count: 0 })));
    for expected in 0..3 {
        assert_eq!(store.reserve_slot(3).await.unwrap(), expected);
    }
    let error = store.reserve_slot(3).await.unwrap_err();
    assert!(matches!(error, MetadataError::NoSlot { count: 3 }), "{error:?}");
    store.release_slot(1).await.unwrap();
    store.release_slot(1).await.unwrap();
    assert_eq!(store.reserve_slot(3).await.unwrap(), 1);
    assert!(matches!(store.reserve_slot(2).await, Err(MetadataError::NoSlot { count: 2 })));
    assert_eq!(store.reserve_slot(4).await.unwrap(), 3);
}

pub(super) async fn a_slot_is_bound_with_its_sandbox(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    let mut sandbox = sample::sandbox(&image);
    sandbox.slot = Some(store.reserve_slot(2).await.unwrap());
    store.insert_sandbox(&sandbox).await.unwrap();
    store.release_slot(0).await.unwrap();
    assert_eq!(store.reserve_slot(2).await.unwrap(), 1, "a sandbox's slot is not released");
    assert!(store.reserve_slot(2).await.is_err());

    let mut other = sample::sandbox(&image);
    other.slot = Some(0);
    let error = store.insert_sandbox(&other).await.unwrap_err();
    assert!(matches!(error, MetadataError::SlotInUse { slot: 0 }), "{error:?}");
    assert_eq!(store.get_sandbox(&other.id).await.unwrap(), None);
    other.slot = Some(1);
    store.insert_sandbox(&other).await.unwrap();
    other.slot = Some(0);
    let error = store.update_sandbox(&other).await.unwrap_err();
    assert!(matches!(error, MetadataError::SlotInUse { slot: 0 }), "{error:?}");
    assert_eq!(store.get_sandbox(&other.id).await.unwrap().unwrap().slot, Some(1));

    // Reused only after the sandbox is removed, or gives it up.
    assert!(store.remove_sandbox(&sandbox.id).await.unwrap());
    store.update_sandbox(&other).await.unwrap();
    assert_eq!(store.get_sandbox(&other.id).await.unwrap().unwrap().slot, Some(0));
    assert_eq!(store.reserve_slot(2).await.unwrap(), 1);
    other.slot = None;
    store.update_sandbox(&other).await.unwrap();
    assert_eq!(store.get_sandbox(&other.id).await.unwrap().unwrap().slot, None);
    assert_eq!(store.reserve_slot(2).await.unwrap(), 0);
}

pub(super) async fn tasks_get_distinct_slots(fixture: &dyn Fixture) {
    const TASKS: u32 = 16;
    const EACH: u32 = 4;
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut slots = Vec::new();
                for round in 0..EACH {
                    let slot = store.reserve_slot(TASKS * EACH).await.unwrap();
                    if round % 2 == 0 {
                        let mut sandbox = sample::sandbox(&image);
                        sandbox.slot = Some(slot);
                        sandbox.name = Some(format!("{task} {round}"));
                        store.insert_sandbox(&sandbox).await.unwrap();
                    }
                    slots.push(slot);
                }
                slots
            })
        })
        .collect();
    let mut slots = Vec::new();
    for task in tasks {
        slots.extend(task.await.unwrap());
    }
    assert_eq!(slots.len() as u32, TASKS * EACH);
    let distinct: BTreeSet<_> = slots.into_iter().collect();
    assert_eq!(distinct, (0..TASKS * EACH).collect());
    assert!(store.reserve_slot(TASKS * EACH).await.is_err());
}

pub(super) async fn unused_slots_are_released_at_start(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    for _ in 0..3 {
        store.reserve_slot(10).await.unwrap();
    }
    let mut sandbox = sample::sandbox(&image);
    sandbox.slot = Some(1);
    store.insert_sandbox(&sandbox).await.unwrap();
    drop(store);
    let store = fixture.reopen().await;
    assert_eq!(store.reserve_slot(10).await.unwrap(), 3, "reservations outlive the daemon");
    assert_eq!(store.release_unused_slots().await.unwrap(), 3);
    assert_eq!(store.release_unused_slots().await.unwrap(), 0);
    for expected in [0, 2, 3] {
        assert_eq!(store.reserve_slot(10).await.unwrap(), expected);
    }
}
