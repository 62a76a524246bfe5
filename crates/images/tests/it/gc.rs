//! What nothing needs goes, exactly as the list said; what is needed stays, whatever else goes on.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use jiff::SignedDuration;
use kiln_images::{GcScope, NewImage};
use kiln_metadata::{BasePin, ImageRecord, StepRecord};
use kiln_testkit::Tree;
use kiln_types::api::GcKind;
use kiln_types::{DiffId, Digest, StepKey};
use sqlx::{Connection as _, SqliteConnection};

use crate::support::Fixture;

/// Bytes on the disk of all files below a directory.
fn allocated(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let found = entry.metadata().unwrap();
            if found.is_dir() { allocated(&entry.path()) } else { found.blocks() * 512 }
        })
        .sum()
}

fn on_disk(fixture: &Fixture) -> u64 {
    ["blobs", "indexes", "quarantine"]
        .map(|dir| allocated(&fixture.dir.path().join(dir)))
        .iter()
        .sum()
}

async fn image(fixture: &Fixture, layers: &[DiffId], name: Option<&str>) -> ImageRecord {
    let image = NewImage {
        layers: layers.to_vec(),
        name: name.map(|name| name.parse().unwrap()),
        ..NewImage::default()
    };
    fixture.store.commit_image(image).await.unwrap()
}

async fn step(fixture: &Fixture, name: &str, layer: Option<DiffId>) -> StepKey {
    let key = StepKey::from(Digest::of(name));
    fixture.store.metadata().put_step(&StepRecord { key, layer }).await.unwrap();
    key
}

fn tree(name: &str) -> Tree {
    Tree::root().file(name, name.repeat(3000))
}

#[tokio::test]
async fn a_dry_run_says_to_the_byte_what_the_run_frees() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let base = fixture.add(&tree("base"), &[]).await.diff_id;
    let used = fixture.add(&Tree::new().file("etc/used", "u"), &[base]).await.diff_id;
    let kept = image(&fixture, &[base, used], Some("kept")).await;
    // An image without a name, on a layer that another has and one of its own.
    let alone = fixture.add(&Tree::new().file("etc/alone", "a"), &[base]).await.diff_id;
    let unnamed = image(&fixture, &[base, alone], None).await;
    // A step that an image has, one that none has, one without a layer.
    step(&fixture, "used", Some(used)).await;
    let cached = fixture.add(&tree("cached"), &[]).await.diff_id;
    let of_cache = step(&fixture, "cached", Some(cached)).await;
    let of_nothing = step(&fixture, "nothing", None).await;
    // What only a pin leads to, and what a crash left.
    let pinned = fixture.add(&tree("pinned"), &[]).await.diff_id;
    let pinned = image(&fixture, &[pinned], None).await;
    let pin = BasePin {
        base: "rootfs:/x".to_owned(),
        image: pinned.digest,
        source: "rootfs".to_owned(),
        resolved_at: jiff::Timestamp::now(),
    };
    store.metadata().put_base_pin(&pin).await.unwrap();
    store.blobs().put(&[7; 9000]).unwrap();
    let quarantine = fixture.dir.path().join("quarantine");
    fs::create_dir(&quarantine).unwrap();
    fs::write(quarantine.join("1000-old"), [1; 5000]).unwrap();

    let week = GcScope::Older(SignedDuration::from_hours(168));
    for scope in [GcScope::Leftovers, week, GcScope::Older(SignedDuration::ZERO), GcScope::All] {
        let before = on_disk(&fixture);
        let plan = store.gc_plan(scope).await.unwrap();
        assert_eq!(on_disk(&fixture), before);
        let done = store.gc(scope).await.unwrap();
        assert_eq!(done, plan, "{scope:?}");
        assert_eq!(before - on_disk(&fixture), plan.bytes, "{scope:?}");
        let of = |kind| {
            let items = plan.items.iter().filter(move |item| item.kind == kind);
            items.map(|item| item.subject.clone()).collect::<BTreeSet<_>>()
        };
        let images: BTreeSet<_> =
            [unnamed.digest, pinned.digest].iter().map(ToString::to_string).collect();
        let steps: BTreeSet<_> = [of_cache, of_nothing].iter().map(ToString::to_string).collect();
        match scope {
            GcScope::Leftovers => {
                assert_eq!(plan.items.len(), 1, "{:#?}", plan.items);
                assert_eq!(plan.items[0].kind, GcKind::Leftover);
            }
            // All is young but for what lies in quarantine since long ago.
            scope if scope == week => {
                assert_eq!(
                    of(GcKind::Quarantined),
                    BTreeSet::from(["quarantine/1000-old".to_owned()])
                );
                assert_eq!(plan.items.len(), 1, "{:#?}", plan.items);
            }
            GcScope::All => assert_eq!(plan.items, []),
            GcScope::Older(_) => {
                assert_eq!((of(GcKind::Image), of(GcKind::Step)), (images, steps));
                assert_eq!(of(GcKind::Layer).len(), 3);
                assert_eq!(of(GcKind::Document).len(), 4);
                assert_eq!(of(GcKind::Index).len(), 3);
            }
        }
        store.check(&kept).await.unwrap();
    }
    assert_eq!(store.metadata().list_layers().await.unwrap().len(), 2);
    assert_eq!(store.metadata().get_base_pin("rootfs:/x").await.unwrap(), None);
}

#[tokio::test]
async fn what_is_held_stays_and_goes_when_it_is_let_go() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let base = fixture.add(&tree("base"), &[]).await.diff_id;
    let top = fixture.add(&Tree::new().file("etc/top", "t"), &[base]).await.diff_id;
    let held = image(&fixture, &[base, top], None).await;
    let hold = store.hold(&[base, top]).await;
    assert_eq!(store.gc(GcScope::All).await.unwrap().items, []);
    store.check(&held).await.unwrap();
    drop(hold);
    assert!(store.gc(GcScope::All).await.unwrap().bytes > 0);
    fixture.assert_empty().await;
}

#[tokio::test]
async fn with_a_damaged_database_nothing_is_removed() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let layer = fixture.add(&tree("base"), &[]).await.diff_id;
    image(&fixture, &[layer], Some("named")).await;
    let path = fixture.dir.path().join("kiln.sqlite");
    // The name is gone, and nobody removed it.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("DELETE FROM image_names").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let error = store.gc(GcScope::All).await.unwrap_err();
    assert_eq!(error.code(), kiln_types::ErrorCode::StoreCorrupt);
    assert!(error.to_string().contains("image_names"), "{error}");
    store.prove_layers(&[layer]).await.unwrap();
}
