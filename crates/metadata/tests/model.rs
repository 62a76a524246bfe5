//! Random operations on the store and on plain maps give the same answers and the same contents.

#[path = "model/maps.rs"]
mod maps;

use kiln_metadata::conformance::sample;
use kiln_metadata::{MetadataError, MetadataStore, SqliteStore};
use kiln_types::{Digest, SandboxId, SnapshotId};
use proptest::prelude::*;
use tempfile::TempDir;

use self::maps::{Answer, Maps};

/// Small numbers name layers, images, names, sandboxes and slots, so that operations meet often.
#[derive(Clone, Debug)]
enum Operation {
    PutLayer(u8),
    RemoveLayer(u8),
    PutImage { image: u8, layers: Vec<u8>, name: Option<u8> },
    RemoveImage(u8),
    PutName { name: u8, image: u8 },
    RemoveName(u8),
    PutStep { step: u8, layer: Option<u8> },
    InsertSandbox { sandbox: u8, image: u8, name: Option<u8>, slot: Option<u8> },
    UpdateSandbox { sandbox: u8, image: u8, name: Option<u8>, slot: Option<u8> },
    RemoveSandbox(u8),
    ReserveSlot(u8),
    ReleaseSlot(u8),
    ReleaseUnused,
    InsertSnapshot { name: u8, image: u8 },
    RemoveSnapshot(u8),
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as O;
    let few = || 0_u8..4;
    let maybe = || prop::option::of(0_u8..3);
    prop_oneof![
        6 => few().prop_map(O::PutLayer),
        1 => few().prop_map(O::RemoveLayer),
        6 => (few(), prop::collection::vec(few(), 0..3), maybe())
            .prop_map(|(image, layers, name)| O::PutImage { image, layers, name }),
        2 => few().prop_map(O::RemoveImage),
        2 => (few(), few()).prop_map(|(name, image)| O::PutName { name, image }),
        1 => few().prop_map(O::RemoveName),
        2 => (few(), maybe()).prop_map(|(step, layer)| O::PutStep { step, layer }),
        5 => (few(), few(), maybe(), maybe()).prop_map(
            |(sandbox, image, name, slot)| O::InsertSandbox { sandbox, image, name, slot }
        ),
        4 => (few(), few(), maybe(), maybe()).prop_map(
            |(sandbox, image, name, slot)| O::UpdateSandbox { sandbox, image, name, slot }
        ),
        2 => few().prop_map(O::RemoveSandbox),
        3 => few().prop_map(O::ReserveSlot),
        1 => few().prop_map(O::ReleaseSlot),
        1 => Just(O::ReleaseUnused),
        4 => (few(), few()).prop_map(|(name, image)| O::InsertSnapshot { name, image }),
        2 => few().prop_map(O::RemoveSnapshot),
        1 => Just(O::Reopen),
    ]
}

fn image_digest(image: u8) -> Digest {
    sample::image(&image.to_string(), &[]).digest
}

/// An id that depends on the number alone, in the same order.
fn sandbox_id(sandbox: u8) -> SandboxId {
    format!("sbx_{sandbox:032x}").parse().unwrap()
}

fn sandbox_record(
    sandbox: u8,
    image: u8,
    name: Option<u8>,
    slot: Option<u8>,
) -> kiln_metadata::SandboxRecord {
    let mut record = sample::sandbox(&image_digest(image));
    record.id = sandbox_id(sandbox);
    record.name = name.map(|name| name.to_string());
    record.slot = slot.map(u32::from);
    record
}

/// What matters of a result: its number, or which error it is.
fn answer<T: Into<Answer>>(result: Result<T, MetadataError>) -> Answer {
    match result {
        Ok(value) => value.into(),
        Err(error) => Answer::Refused(match error {
            MetadataError::NameInUse { what, .. } => what,
            MetadataError::NoSlot { .. } => "no slot",
            MetadataError::SlotInUse { .. } => "slot in use",
            MetadataError::ImageMissing { .. } => "image missing",
            MetadataError::ImageInUse { .. } => "image in use",
            MetadataError::LayerMissing { .. } => "layer missing",
            MetadataError::LayerInUse { .. } => "layer in use",
            MetadataError::SandboxMissing { .. } => "sandbox missing",
            MetadataError::Query { .. } => "query",
            other => panic!("{other:?}"),
        }),
    }
}

async fn apply(store: &SqliteStore, number: usize, operation: &Operation) -> Answer {
    use Operation as O;
    let image_name = |name: u8| sample::name(&format!("n{name}"));
    match operation {
        O::PutLayer(layer) => answer(store.put_layer(&sample::layer(&layer.to_string())).await),
        O::RemoveLayer(layer) => {
            answer(store.remove_layer(&sample::diff_id(&layer.to_string())).await)
        }
        O::PutImage { image, layers, name } => {
            let layers: Vec<String> = layers.iter().map(u8::to_string).collect();
            let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
            let image = sample::image(&image.to_string(), &layers);
            answer(store.put_image(&image, name.map(image_name).as_ref()).await)
        }
        O::RemoveImage(image) => answer(store.remove_image(&image_digest(*image)).await),
        O::PutName { name, image } => {
            answer(store.put_name(&image_name(*name), &image_digest(*image)).await)
        }
        O::RemoveName(name) => answer(store.remove_name(&image_name(*name)).await),
        O::PutStep { step, layer } => {
            let key = Digest::of([*step]).into();
            let layer = layer.map(|layer| sample::diff_id(&layer.to_string()));
            answer(store.put_step(&kiln_metadata::StepRecord { key, layer }).await)
        }
        O::InsertSandbox { sandbox, image, name, slot } => {
            answer(store.insert_sandbox(&sandbox_record(*sandbox, *image, *name, *slot)).await)
        }
        O::UpdateSandbox { sandbox, image, name, slot } => {
            answer(store.update_sandbox(&sandbox_record(*sandbox, *image, *name, *slot)).await)
        }
        O::RemoveSandbox(sandbox) => answer(store.remove_sandbox(&sandbox_id(*sandbox)).await),
        O::ReserveSlot(count) => answer(store.reserve_slot(u32::from(*count)).await),
        O::ReleaseSlot(slot) => answer(store.release_slot(u32::from(*slot)).await),
        O::ReleaseUnused => answer(store.release_unused_slots().await),
        O::InsertSnapshot { name, image } => {
            let mut snapshot = sample::snapshot(&format!("n{name}"), &image_digest(*image));
            snapshot.id = format!("snp_{number:032x}").parse::<SnapshotId>().unwrap();
            answer(store.insert_snapshot(&snapshot).await)
        }
        O::RemoveSnapshot(name) => answer(store.remove_snapshot(&format!("n{name}")).await),
        O::Reopen => Answer::Done,
    }
}

/// All that the store answers, in the words of the maps.
async fn contents(store: &SqliteStore) -> Maps {
    let mut maps = Maps::default();
    let layer_number =
        |diff_id| (0..4).find(|layer: &u8| sample::diff_id(&layer.to_string()) == diff_id).unwrap();
    let image_number = |digest| (0..4).find(|image| image_digest(*image) == digest).unwrap();
    for layer in store.list_layers().await.unwrap() {
        maps.layers.insert(layer_number(layer.diff_id));
    }
    for image in store.list_images(None, 100).await.unwrap() {
        let layers = image.layers.iter().map(|layer| layer_number(*layer)).collect();
        maps.images.insert(image_number(image.digest), layers);
        for name in store.names_of(&image.digest).await.unwrap() {
            let name = name.path()[1..].parse().unwrap();
            maps.names.insert(name, image_number(image.digest));
        }
    }
    for step in 0..4 {
        if let Some(record) = store.get_step(&Digest::of([step]).into()).await.unwrap() {
            maps.steps.insert(step, record.layer.map(layer_number));
        }
    }
    for sandbox in store.list_sandboxes(None, 100).await.unwrap() {
        let number = (0..4).find(|number| sandbox_id(*number) == sandbox.id).unwrap();
        let name = sandbox.name.map(|name| name.parse().unwrap());
        maps.sandboxes.insert(number, (image_number(sandbox.image_digest), name));
        if let Some(slot) = sandbox.slot {
            maps.slots.insert(slot as u8, Some(number));
        }
    }
    for snapshot in store.list_snapshots(None, 100).await.unwrap() {
        maps.snapshots.insert(snapshot.name[1..].parse().unwrap(), image_number(snapshot.image));
    }
    maps
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_store_is_like_maps(operations in prop::collection::vec(operation(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("kiln.db");
            let mut store = SqliteStore::open(&path).await.unwrap();
            let mut maps = Maps::default();
            for (number, operation) in operations.iter().enumerate() {
                if let Operation::Reopen = operation {
                    store = SqliteStore::open(&path).await.unwrap();
                }
                let found = apply(&store, number, operation).await;
                let expected = maps.apply(operation);
                prop_assert_eq!(found, expected, "{}: {:?}", number, operation);
            }
            // Reservations are not listed; the maps know them.
            let mut found = contents(&store).await;
            for (slot, sandbox) in &maps.slots {
                if sandbox.is_none() {
                    found.slots.insert(*slot, None);
                }
            }
            prop_assert_eq!(found, maps);
            Ok(())
        })?;
    }
}
