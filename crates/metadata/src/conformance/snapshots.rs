//! Snapshots and their names.

use kiln_types::ErrorCode;

use super::{Fixture, sample};
use crate::MetadataError;

pub(super) async fn a_snapshot_names_its_image(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    let snapshot = sample::snapshot("dev", &image);
    assert_eq!(store.find_snapshot("dev").await.unwrap(), None);
    store.insert_snapshot(&snapshot).await.unwrap();
    for name in ["dev", "dev:latest"] {
        assert_eq!(store.find_snapshot(name).await.unwrap(), Some(snapshot.clone()), "{name}");
    }
    for name in ["dev:1", "dev:", "Dev", "", "../dev"] {
        assert_eq!(store.find_snapshot(name).await.unwrap(), None, "{name}");
        assert!(!store.remove_snapshot(name).await.unwrap(), "{name}");
    }
    assert_eq!(store.resolve_name(&sample::name("dev")).await.unwrap(), Some(image));
    assert!(store.remove_snapshot("dev").await.unwrap());
    assert!(!store.remove_snapshot("dev").await.unwrap());
    assert_eq!(store.find_snapshot("dev").await.unwrap(), None);
    assert_eq!(store.resolve_name(&sample::name("dev")).await.unwrap(), None);
    assert!(store.get_image(&image).await.unwrap().is_some(), "the image itself stays");

    let error = store.insert_snapshot(&sample::snapshot("../dev", &image)).await.unwrap_err();
    assert!(matches!(error, MetadataError::InvalidName { .. }), "{error:?}");
    assert_eq!(error.code(), ErrorCode::InvalidReference);
}

pub(super) async fn names_of_snapshots_are_kept(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    let other = sample::stored_image(store.as_ref(), "y").await;
    let in_use = |error: MetadataError, expected: &str| {
        assert!(
            matches!(error, MetadataError::NameInUse { what, .. } if what == expected),
            "{error:?}"
        );
    };
    store.insert_snapshot(&sample::snapshot("dev", &image)).await.unwrap();
    for name in ["dev", "dev:latest"] {
        let error = store.insert_snapshot(&sample::snapshot(name, &other)).await.unwrap_err();
        in_use(error, "a snapshot");
    }
    // Neither a new name nor a new image takes it.
    let dev = sample::name("dev");
    in_use(store.put_name(&dev, &other).await.unwrap_err(), "a snapshot");
    let third = sample::image("third", &[]);
    in_use(store.put_image(&third, Some(&dev)).await.unwrap_err(), "a snapshot");
    assert_eq!(store.get_image(&third.digest).await.unwrap(), None);
    assert!(store.remove_name(&dev).await.unwrap());
    in_use(store.put_name(&dev, &other).await.unwrap_err(), "a snapshot");
    store.put_name(&dev, &image).await.unwrap();
    assert_eq!(store.resolve_name(&dev).await.unwrap(), Some(image));

    // A snapshot does not take an image's either, unless it is the same image.
    store.put_name(&sample::name("web"), &other).await.unwrap();
    let error = store.insert_snapshot(&sample::snapshot("web", &image)).await.unwrap_err();
    in_use(error, "an image");
    assert_eq!(store.find_snapshot("web").await.unwrap(), None);
    assert_eq!(store.resolve_name(&sample::name("web")).await.unwrap(), Some(other));
    store.insert_snapshot(&sample::snapshot("web", &other)).await.unwrap();
    assert!(store.remove_snapshot("dev").await.unwrap());
    store.put_name(&dev, &other).await.unwrap();
}
