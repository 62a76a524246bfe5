//! Lists by pages, while rows come and go.

use kiln_types::{BuildId, Digest, ErrorCode, SandboxId};

use super::{Fixture, sample};
use crate::MetadataError;

const ROWS: usize = 250;
const PAGE: u32 = 37;

/// Walks a list that has `ROWS` rows, inserting one between pages, and checks that exactly the rows
/// that were there at the start come, newest first. `$page` takes a cursor, `$insert` a number.
macro_rules! walk {
    ($insert:expr, $page:expr) => {{
        let mut expected = Vec::new();
        for number in 0..ROWS {
            expected.insert(0, $insert(number).await);
        }
        let mut seen = Vec::new();
        let mut number = ROWS;
        loop {
            let page = $page(seen.last().cloned()).await;
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= PAGE as usize);
            seen.extend(page);
            assert!(seen.len() <= ROWS, "the list goes on past its rows");
            $insert(number).await;
            number += 1;
        }
        assert_eq!(seen.len(), ROWS);
        assert!(seen == expected, "pages have gaps, repeats or another order");
    }};
}

pub(super) async fn sandboxes(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    walk!(
        async |_| {
            let sandbox = sample::sandbox(&image);
            store.insert_sandbox(&sandbox).await.unwrap();
            sandbox.id
        },
        async |cursor: Option<SandboxId>| -> Vec<SandboxId> {
            let page = store.list_sandboxes(cursor.as_ref(), PAGE).await.unwrap();
            page.into_iter().map(|sandbox| sandbox.id).collect()
        }
    );
    // The cursor's own row may go.
    let page = store.list_sandboxes(None, 3).await.unwrap();
    store.remove_sandbox(&page[1].id).await.unwrap();
    assert_eq!(store.list_sandboxes(Some(&page[1].id), 1).await.unwrap(), page[2..]);
}

pub(super) async fn builds(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    walk!(
        async |_| {
            let build = sample::build();
            store.put_build(&build).await.unwrap();
            build.id
        },
        async |cursor: Option<BuildId>| -> Vec<BuildId> {
            let page = store.list_builds(cursor.as_ref(), PAGE).await.unwrap();
            page.into_iter().map(|build| build.id).collect()
        }
    );
}

pub(super) async fn images(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    walk!(
        async |number| {
            let image = sample::image(&format!("{number}"), &[]);
            store.put_image(&image, None).await.unwrap();
            // One that is there already is put again: its place does not change.
            let again = sample::image(&format!("{}", number / 2), &[]);
            store.put_image(&again, None).await.unwrap();
            image.digest
        },
        async |cursor: Option<Digest>| -> Vec<Digest> {
            let page = store.list_images(cursor.as_ref(), PAGE).await.unwrap();
            page.into_iter().map(|image| image.digest).collect()
        }
    );
    let page = store.list_images(None, 3).await.unwrap();
    store.remove_image(&page[2].digest).await.unwrap();
    let error = store.list_images(Some(&page[2].digest), 1).await.unwrap_err();
    assert!(matches!(error, MetadataError::UnknownCursor { .. }), "{error:?}");
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
    // By places it goes on, wherever what was there last has gone.
    let before = store.list_images_below(None, 1000).await.unwrap();
    store.remove_image(&before[1].1.digest).await.unwrap();
    let rest = store.list_images_below(Some(before[1].0), 1000).await.unwrap();
    assert_eq!(rest, before[2..]);
    assert_eq!(store.list_images_below(Some(0), 100).await.unwrap(), []);
    assert_eq!(store.list_images_below(Some(u64::MAX), 1).await.unwrap(), before[..1]);
}

pub(super) async fn snapshots(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    walk!(
        async |number| {
            let snapshot = sample::snapshot(&format!("s{number}"), &image);
            store.insert_snapshot(&snapshot).await.unwrap();
            snapshot.name
        },
        async |cursor: Option<String>| -> Vec<String> {
            let page = store.list_snapshots(cursor.as_deref(), PAGE).await.unwrap();
            page.into_iter().map(|snapshot| snapshot.name).collect()
        }
    );
    // An id is a cursor too, and needs no row.
    let page = store.list_snapshots(None, 3).await.unwrap();
    store.remove_snapshot(&page[1].name).await.unwrap();
    let rest = store.list_snapshots(Some(&page[1].id.to_string()), 1).await.unwrap();
    assert_eq!(rest, page[2..]);
    let error = store.list_snapshots(Some("nowhere"), 1).await.unwrap_err();
    assert!(matches!(error, MetadataError::UnknownCursor { .. }), "{error:?}");
}

pub(super) async fn a_page_has_its_limit(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    for number in 0..5 {
        store.put_image(&sample::image(&format!("{number}"), &[]), None).await.unwrap();
        store.put_build(&sample::build()).await.unwrap();
    }
    for (limit, expected) in [(0, 0), (1, 1), (4, 4), (5, 5), (6, 5), (u32::MAX, 5)] {
        assert_eq!(store.list_images(None, limit).await.unwrap().len(), expected, "{limit}");
        assert_eq!(store.list_builds(None, limit).await.unwrap().len(), expected, "{limit}");
    }
}
