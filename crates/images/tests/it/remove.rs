use jiff::Timestamp;
use kiln_images::{NewImage, Removed};
use kiln_metadata::{ImageRecord, SandboxRecord, StepRecord};
use kiln_testkit::Tree;
use kiln_types::api::{ResourceLimits, SandboxStatus};
use kiln_types::error::ErrorCode;
use kiln_types::{DiffId, Digest, SandboxId, StepKey};

use crate::support::Fixture;

async fn commit(fixture: &Fixture, layers: &[DiffId], name: &str) -> ImageRecord {
    let image = NewImage {
        layers: layers.to_vec(),
        name: Some(name.parse().unwrap()),
        ..NewImage::default()
    };
    fixture.store.commit_image(image).await.unwrap()
}

fn disk_usage(fixture: &Fixture) -> u64 {
    let blobs: u64 = fixture.store.blobs().list().unwrap().iter().map(|blob| blob.size).sum();
    let dir = fixture.dir.path().join("indexes");
    let sizes = fixture.indexes().into_iter().map(|name| dir.join(name).metadata().unwrap().len());
    blobs + sizes.sum::<u64>()
}

#[tokio::test]
async fn the_last_name_takes_the_image_and_what_only_it_needed() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let base = fixture.add(&Tree::root(), &[]).await.diff_id;
    let a = fixture.add(&Tree::new().file("etc/a", "a"), &[base]).await.diff_id;
    let b = fixture.add(&Tree::new().file("etc/b", "b"), &[base]).await.diff_id;
    let first = commit(&fixture, &[base, a], "first").await;
    store.put_name(&"again".parse().unwrap(), &first.digest).await.unwrap();
    let second = commit(&fixture, &[base, b], "second").await;
    let step = StepRecord { key: StepKey::from(Digest::of("step")), layer: Some(a) };
    store.metadata().put_step(&step).await.unwrap();

    assert_eq!(store.remove_image("again").await.unwrap(), Removed::default());
    assert_eq!(store.resolve("first").await.unwrap(), first);
    let before = disk_usage(&fixture);
    let removed = store.remove_image("first").await.unwrap();
    assert_eq!(removed.image, Some(first.digest));
    assert_eq!(before - disk_usage(&fixture), removed.bytes);
    assert_eq!(store.metadata().get_step(&step.key).await.unwrap(), None);
    assert_eq!(store.metadata().get_layer(&a).await.unwrap(), None);
    assert_eq!(store.resolve("first").await.unwrap_err().code(), ErrorCode::ImageNotFound);
    // What the other image needs is still whole.
    store.check(&second).await.unwrap();
    let removed = store.remove_image(&second.digest.to_string()).await.unwrap();
    assert!(removed.bytes > 0);
    fixture.assert_empty().await;
}

#[tokio::test]
async fn a_name_alone_can_go() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let layer = fixture.add(&Tree::root(), &[]).await.diff_id;
    let image = commit(&fixture, &[layer], "app").await;
    assert_eq!(store.remove_name("app").await.unwrap(), Removed::default());
    assert_eq!(store.resolve("app").await.unwrap_err().code(), ErrorCode::ImageNotFound);
    store.check(&store.resolve(&image.digest.to_string()).await.unwrap()).await.unwrap();
    let error = store.remove_name(&image.digest.to_string()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidReference);
}

#[tokio::test]
async fn an_image_in_use_stays() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let layer = fixture.add(&Tree::root(), &[]).await.diff_id;
    let image = commit(&fixture, &[layer], "app").await;
    let sandbox = SandboxRecord {
        id: SandboxId::new(),
        name: None,
        status: SandboxStatus::Stopped,
        image: "app".into(),
        image_digest: image.digest,
        env: std::collections::BTreeMap::new(),
        limits: ResourceLimits::default(),
        slot: None,
        address: None,
        reason: None,
        driver: "native".into(),
        created_at: Timestamp::now(),
    };
    store.metadata().insert_sandbox(&sandbox).await.unwrap();
    let error = store.remove_image("app").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ImageInUse);
    assert!(error.to_string().contains(&sandbox.id.to_string()), "{error}");
    store.check(&store.resolve("app").await.unwrap()).await.unwrap();
    store.metadata().remove_sandbox(&sandbox.id).await.unwrap();
    store.remove_image("app").await.unwrap();
    fixture.assert_empty().await;
}

#[tokio::test]
async fn held_layers_stay() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let base = fixture.add(&Tree::root(), &[]).await.diff_id;
    let top = fixture.add(&Tree::new().file("etc/a", "a"), &[base]).await.diff_id;
    commit(&fixture, &[base, top], "app").await;
    let hold = store.hold(&[base, top]).await;
    let removed = store.remove_image("app").await.unwrap();
    assert!(removed.image.is_some());
    store.prove_layers(&[base, top]).await.unwrap();
    store.discard_layers(&[base, top], &[base, top]).await;
    store.prove_layers(&[base, top]).await.unwrap();
    // A layer that is needed again is not discarded either.
    let image = commit(&fixture, &[base], "base").await;
    drop(hold);
    store.discard_layers(&[base, top], &[base, top]).await;
    store.check(&image).await.unwrap();
    assert!(!store.has_layer(&top).await.unwrap());
    assert_eq!(fixture.indexes().len(), 1);
}
