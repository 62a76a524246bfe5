use std::fs;
use std::io::Cursor;

use kiln_images::ImagesError;
use kiln_testkit::{Tree, gzip, gzip_members, zstd};
use kiln_types::error::ErrorCode;
use kiln_types::{ChainId, DiffId, Digest};

use crate::support::{Fixture, open};

#[tokio::test]
async fn every_compression_gives_the_same_layer() {
    let tar = Tree::root().file("etc/motd", "hello").tar();
    let diff_id = DiffId(Digest::of(&tar));
    for archive in [tar.clone(), gzip(&tar), gzip_members(&tar, 3), zstd(&tar)] {
        let fixture = Fixture::new().await;
        let store = &fixture.store;
        let layer =
            store.import_layer(Box::new(Cursor::new(archive)), Some(diff_id), &[]).await.unwrap();
        assert_eq!((layer.diff_id, layer.size), (diff_id, tar.len() as u64));
        assert!(!layer.needs_parents);
        assert_eq!(store.blobs().read(&diff_id.0).unwrap(), tar);
        assert_eq!(store.metadata().get_layer(&diff_id).await.unwrap(), Some(layer));
        assert_eq!(fixture.indexes(), [format!("{}.erofs", diff_id.hex())]);
        let mountable = store.prove_layers(&[diff_id]).await.unwrap().remove(0);
        assert_eq!(mountable.devices, [store.blobs().path(&diff_id.0)]);
        assert!(mountable.index.is_file());
    }
}

#[tokio::test]
async fn a_refused_layer_leaves_nothing() {
    let tar = Tree::root().tar();
    let damaged = {
        let mut gz = gzip(&tar);
        let last = gz.len() - 5;
        gz[last] ^= 1;
        gz
    };
    let cut = tar[..tar.len() / 2 + 100].to_vec();
    let other = Some(DiffId(Digest::of("other")));
    for (archive, expected) in
        [(tar.clone(), other), (damaged, None), (cut, None), (b"no archive".to_vec(), None)]
    {
        let fixture = Fixture::new().await;
        let error = fixture
            .store
            .import_layer(Box::new(Cursor::new(archive)), expected, &[])
            .await
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRequest, "{error:?}");
        fixture.assert_empty().await;
    }
}

#[tokio::test]
async fn an_unfinished_layer_is_invisible() {
    let fixture = Fixture::new().await;
    let pending = fixture.store.ingest(Box::new(Cursor::new(Tree::root().tar())), None).unwrap();
    fixture.assert_empty().await;
    drop(pending);
    fixture.assert_empty().await;
}

#[tokio::test]
async fn a_layer_with_implied_directories_is_indexed_for_each_chain() {
    let fixture = Fixture::new().await;
    let first = fixture.add(&Tree::root(), &[]).await.diff_id;
    let second = fixture.add(&Tree::root().dir("etc").mode(0o700), &[]).await.diff_id;
    let top = Tree::new().file("etc/motd", "hello");
    let record = fixture.add(&top, &[first]).await;
    assert!(record.needs_parents);
    let layer = record.diff_id;
    let chain = |below| format!("chain-{}.erofs", ChainId::of(&[below, layer]).unwrap().hex());
    assert!(fixture.indexes().contains(&chain(first)));
    assert!(!fixture.indexes().contains(&chain(second)));
    // On another base it gets another index, which says something else.
    let proven = fixture.store.prove_layers(&[second, layer]).await.unwrap();
    assert!(proven[1].index.ends_with(chain(second)));
    let read = |below| fs::read(fixture.dir.path().join("indexes").join(chain(below))).unwrap();
    assert_ne!(read(first), read(second));
    // Without its base it cannot be finished, and leaves nothing.
    let tree = Tree::new().file("usr/share/x", "y");
    let missing = DiffId(Digest::of("missing"));
    let error = fixture
        .store
        .import_layer(Box::new(Cursor::new(tree.tar())), None, &[missing])
        .await
        .unwrap_err();
    assert!(matches!(error, ImagesError::LayerMissing { layer } if layer == missing), "{error:?}");
    assert_eq!(fixture.store.blobs().list().unwrap().len(), 3);
}

#[tokio::test]
async fn a_hardlink_into_a_lower_layer_names_both_tars() {
    let fixture = Fixture::new().await;
    let base = fixture.add(&Tree::root(), &[]).await.diff_id;
    let top = Tree::new().dir(".").dir("etc").hardlink("etc/copy", "etc/hostname");
    let top = fixture.add(&top, &[base]).await;
    assert!(top.needs_parents);
    let proven = fixture.store.prove_layers(&[base, top.diff_id]).await.unwrap();
    let paths = [top.diff_id, base].map(|layer| fixture.store.blobs().path(&layer.0));
    assert_eq!(proven[1].devices, paths);
}

#[tokio::test]
async fn lost_and_damaged_indexes_are_made_again() {
    let fixture = Fixture::new().await;
    let base = fixture.add(&Tree::root(), &[]).await.diff_id;
    let top = fixture.add(&Tree::new().file("etc/motd", "hello"), &[base]).await.diff_id;
    let layers = [base, top];
    let proven = fixture.store.prove_layers(&layers).await.unwrap();
    let paths: Vec<_> = proven.iter().map(|layer| layer.index.clone()).collect();
    let good: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let damages: [fn(&std::path::Path); 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| replace(path, b"short"),
        |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[1024] ^= 1;
            replace(path, &bytes);
        },
    ];
    for damage in damages {
        for path in &paths {
            damage(path);
        }
        assert_eq!(fixture.store.prove_layers(&layers).await.unwrap(), proven);
        let now: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(now == good, "the index differs from the first one");
    }
}

/// Indexes are read-only files; what damages them puts another file there.
fn replace(path: &std::path::Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn lost_and_short_tars_are_found_out() {
    let fixture = Fixture::new().await;
    let layer = fixture.add(&Tree::root(), &[]).await.diff_id;
    let path = fixture.store.blobs().path(&layer.0);
    let tar = fs::read(&path).unwrap();
    for bytes in [None, Some(&tar[..100])] {
        fs::remove_file(&path).unwrap();
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).unwrap();
        }
        let error = fixture.store.prove_layers(&[layer]).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::StoreCorrupt, "{error:?}");
        assert!(error.to_string().contains(&layer.to_string()), "{error}");
        assert!(!fixture.store.has_layer(&layer).await.unwrap());
        // The same layer again heals it.
        fixture.add(&Tree::root(), &[]).await;
        assert!(fixture.store.has_layer(&layer).await.unwrap());
        fixture.store.prove_layers(&[layer]).await.unwrap();
    }
}

#[tokio::test]
async fn leftovers_of_a_crash_go_at_the_next_start() {
    let fixture = Fixture::new().await;
    let layer = fixture.add(&Tree::root(), &[]).await.diff_id;
    fs::write(fixture.dir.path().join("indexes/.new-abc"), "half").unwrap();
    let store = open(fixture.dir.path()).await;
    assert_eq!(fixture.indexes(), [format!("{}.erofs", layer.hex())]);
    store.prove_layers(&[layer]).await.unwrap();
}

#[tokio::test]
async fn equal_layers_at_the_same_time_are_one() {
    let fixture = Fixture::new().await;
    let tree = Tree::noise(1, 20, 4000);
    let add = || fixture.add(&tree, &[]);
    let (a, b, c) = tokio::join!(add(), add(), add());
    assert!(a == b && b == c);
    assert_eq!(fixture.store.blobs().list().unwrap().len(), 1);
    assert_eq!(fixture.indexes().len(), 1);
}
