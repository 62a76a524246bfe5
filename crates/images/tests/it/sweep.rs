use kiln_images::NewImage;
use kiln_metadata::StepRecord;
use kiln_testkit::Tree;
use kiln_types::{DiffId, Digest, StepKey};

use crate::support::{Fixture, open};

#[tokio::test]
async fn what_a_crash_left_goes_and_nothing_else() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let base = fixture.add(&Tree::new().file("etc/base", "b"), &[]).await.diff_id;
    // Without an entry for the root: its index is filed under its chain.
    let above = fixture.add(&Tree::new().file("etc/above", "a"), &[base]).await.diff_id;
    let layers = vec![base, above];
    let image = store.commit_image(NewImage { layers, ..NewImage::default() }).await.unwrap();
    let step = fixture.add(&Tree::root().file("s", "s"), &[]).await.diff_id;
    let row = StepRecord { key: StepKey::from(Digest::of("step")), layer: Some(step) };
    store.metadata().put_step(&row).await.unwrap();
    let (blobs, indexes) = (store.blobs().list().unwrap().len(), fixture.indexes());
    assert_eq!(store.sweep().await.unwrap(), 0);

    // A layer between its row and that of its step, a blob and an index before their row.
    fixture.add(&Tree::root().file("lost", "l"), &[]).await;
    store.blobs().put(b"lost").unwrap();
    let dir = fixture.dir.path().join("indexes");
    for name in [format!("{:064x}.erofs", 1), format!("chain-{:064x}.erofs", 2)] {
        std::fs::write(dir.join(name), "lost").unwrap();
    }
    let held = fixture.add(&Tree::root().file("held", "h"), &[]).await.diff_id;
    let foreign = DiffId(store.blobs().put(b"on its way").unwrap().digest);
    let hold = store.hold(&[held, foreign]).await;
    assert!(store.sweep().await.unwrap() > 0);
    assert_eq!(store.blobs().list().unwrap().len(), blobs + 2);
    drop(hold);
    let store = open(fixture.dir.path()).await;
    assert!(store.sweep().await.unwrap() > 0);
    assert_eq!(store.sweep().await.unwrap(), 0);
    assert_eq!((store.blobs().list().unwrap().len(), fixture.indexes()), (blobs, indexes));
    store.check(&image).await.unwrap();
    store.prove_layers(&[step]).await.unwrap();
}
