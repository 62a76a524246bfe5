//! Layers, images and names.

use kiln_types::{Digest, ErrorCode};

use super::{Fixture, sample};
use crate::{BasePin, LayerRecord, MetadataError, StepRecord, TemplateDefaults};

pub(super) async fn layers_and_blobs(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let [one, three] = ["one", "three"].map(sample::layer);
    store.put_layer(&one).await.unwrap();
    store.put_layer(&three).await.unwrap();
    assert_eq!(store.get_layer(&one.diff_id).await.unwrap(), Some(one));
    assert_eq!(store.list_layers().await.unwrap(), [three, one]);
    let replaced = LayerRecord { size: 0, needs_parents: !one.needs_parents, ..one };
    store.put_layer(&replaced).await.unwrap();
    assert_eq!(store.list_layers().await.unwrap(), [three, replaced]);
    let ids = [three.diff_id, one.diff_id, sample::diff_id("none"), three.diff_id];
    assert_eq!(store.get_layers(&ids).await.unwrap(), [three, replaced, three]);
    assert_eq!(store.get_layers(&[]).await.unwrap(), []);
    assert!(store.remove_layer(&one.diff_id).await.unwrap());
    assert!(!store.remove_layer(&one.diff_id).await.unwrap());
    assert_eq!(store.get_layer(&one.diff_id).await.unwrap(), None);

    let compressed = Digest::of("gzip");
    assert_eq!(store.get_blob_diff_id(&compressed).await.unwrap(), None);
    for layer in [one, three] {
        // Also for a layer that is not here.
        store.put_blob_diff_id(&compressed, &layer.diff_id).await.unwrap();
        assert_eq!(store.get_blob_diff_id(&compressed).await.unwrap(), Some(layer.diff_id));
    }
    let huge = LayerRecord { size: u64::MAX, ..one };
    assert!(matches!(
        store.put_layer(&huge).await,
        Ok(()) | Err(MetadataError::OutOfRange { value: u64::MAX, .. })
    ));
}

pub(super) async fn images_come_back_whole(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    for layer in ["a", "b", "c"] {
        store.put_layer(&sample::layer(layer)).await.unwrap();
    }
    let mut image = sample::image("x", &["b", "a", "b", "c"]);
    for (layers, vcpu, memory_mib, key) in [
        (vec!["b", "a", "b", "c"], None, None, None),
        (vec!["c", "a"], Some(2), None, Some("key")),
        (vec![], Some(u32::MAX), Some(0), Some("other")),
    ] {
        image.layers = layers.into_iter().map(sample::diff_id).collect();
        image.defaults = TemplateDefaults { vcpu, memory_mib };
        image.definition_key = key.map(Digest::of);
        image.created_at = sample::time(7);
        store.put_image(&image, None).await.unwrap();
        assert_eq!(store.get_image(&image.digest).await.unwrap().as_ref(), Some(&image));
        assert_eq!(store.list_images(None, 10).await.unwrap(), [image.clone()]);
    }
    assert_eq!(store.get_image(&Digest::of("none")).await.unwrap(), None);
    assert_eq!(store.names_of(&image.digest).await.unwrap(), []);
}

pub(super) async fn names_move(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let one = sample::stored_image(store.as_ref(), "one").await;
    let two = sample::image("two", &["one"]);
    let [dev, old, tagged] = ["dev", "a.example:5000/old", "dev:1"].map(sample::name);
    assert_eq!(store.resolve_name(&dev).await.unwrap(), None);
    for name in [&tagged, &dev, &old] {
        store.put_name(name, &one).await.unwrap();
    }
    assert_eq!(store.names_of(&one).await.unwrap(), [old.clone(), tagged.clone(), dev.clone()]);
    store.put_image(&two, Some(&dev)).await.unwrap();
    assert_eq!(store.resolve_name(&dev).await.unwrap(), Some(two.digest));
    assert_eq!(store.names_of(&one).await.unwrap(), [old.clone(), tagged]);
    store.put_name(&dev, &one).await.unwrap();
    assert_eq!(store.resolve_name(&dev).await.unwrap(), Some(one));
    assert!(store.remove_name(&dev).await.unwrap());
    assert!(!store.remove_name(&dev).await.unwrap());
    assert_eq!(store.resolve_name(&dev).await.unwrap(), None);
    assert!(store.get_image(&one).await.unwrap().is_some(), "only the name is removed");
}

pub(super) async fn defaults_belong_to_names(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let defaults = |vcpu, memory_mib| TemplateDefaults { vcpu, memory_mib };
    let (small, large) = (defaults(Some(1), None), defaults(Some(u32::MAX), Some(0)));
    store.put_layer(&sample::layer("a")).await.unwrap();
    let image = crate::ImageRecord { defaults: small, ..sample::image("a", &["a"]) };
    let [first, second, plain] = ["first", "second", "plain"].map(sample::name);
    store.put_image(&image, Some(&first)).await.unwrap();
    store.put_template(&second, &image.digest, large).await.unwrap();
    store.put_name(&plain, &image.digest).await.unwrap();
    store.insert_snapshot(&sample::snapshot("snap", &image.digest)).await.unwrap();
    for (name, defaults) in [
        (&first, small),
        (&second, large),
        (&plain, TemplateDefaults::default()),
        (&sample::name("snap"), small),
    ] {
        let found = store.resolve_template(name).await.unwrap();
        assert_eq!(found, Some((image.digest, defaults)), "{name}");
    }
    assert_eq!(store.get_image(&image.digest).await.unwrap(), Some(image.clone()));
    store.put_name(&second, &image.digest).await.unwrap();
    let found = store.resolve_template(&second).await.unwrap();
    assert_eq!(found, Some((image.digest, TemplateDefaults::default())));
    assert_eq!(store.resolve_template(&sample::name("none")).await.unwrap(), None);
    let error = store.put_template(&sample::name("snap"), &Digest::of("other"), large).await;
    assert!(matches!(error, Err(MetadataError::NameInUse { .. })), "{error:?}");
}

pub(super) async fn what_is_referred_to_must_be_there(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    store.put_layer(&sample::layer("here")).await.unwrap();
    let image = sample::image("x", &["here", "gone", "here"]);
    let gone = sample::diff_id("gone");
    let error = store.put_image(&image, Some(&sample::name("x"))).await.unwrap_err();
    assert!(
        matches!(error, MetadataError::LayerMissing { diff_id } if diff_id == gone),
        "{error:?}"
    );
    assert_eq!(store.get_image(&image.digest).await.unwrap(), None, "nothing half-made stays");
    assert_eq!(store.resolve_name(&sample::name("x")).await.unwrap(), None);

    let step = StepRecord { key: Digest::of("step").into(), layer: Some(gone) };
    let error = store.put_step(&step).await.unwrap_err();
    assert!(matches!(error, MetadataError::LayerMissing { diff_id } if diff_id == gone));

    let pin = BasePin {
        base: "catalog:debian-12".into(),
        image: image.digest,
        source: "rootfs".into(),
        resolved_at: sample::time(0),
    };
    for error in [
        store.put_name(&sample::name("x"), &image.digest).await.unwrap_err(),
        store.put_base_pin(&pin).await.unwrap_err(),
        store.insert_sandbox(&sample::sandbox(&image.digest)).await.unwrap_err(),
        store.insert_snapshot(&sample::snapshot("x", &image.digest)).await.unwrap_err(),
    ] {
        assert!(
            matches!(error, MetadataError::ImageMissing { digest } if digest == image.digest),
            "{error:?}"
        );
        assert_eq!(error.code(), ErrorCode::ImageNotFound);
    }
    assert_eq!(store.list_snapshots(None, 9).await.unwrap(), []);
}

pub(super) async fn removal_takes_names_and_pins(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let [gone, stays] = [
        sample::stored_image(store.as_ref(), "gone").await,
        sample::stored_image(store.as_ref(), "stays").await,
    ];
    let pin = |base: &str, image| BasePin {
        base: base.into(),
        image,
        source: "an archive".into(),
        resolved_at: sample::time(4),
    };
    for (image, name, base) in
        [(gone, "g", "catalog:g"), (gone, "g:2", "reference:g"), (stays, "s", "catalog:s")]
    {
        store.put_name(&sample::name(name), &image).await.unwrap();
        store.put_base_pin(&pin(base, image)).await.unwrap();
    }
    assert!(store.remove_image(&gone).await.unwrap());
    assert!(!store.remove_image(&gone).await.unwrap());
    for name in ["g", "g:2"] {
        assert_eq!(store.resolve_name(&sample::name(name)).await.unwrap(), None, "{name}");
    }
    for base in ["catalog:g", "reference:g"] {
        assert_eq!(store.get_base_pin(base).await.unwrap(), None, "{base}");
    }
    assert_eq!(store.resolve_name(&sample::name("s")).await.unwrap(), Some(stays));
    assert_eq!(store.get_base_pin("catalog:s").await.unwrap(), Some(pin("catalog:s", stays)));
    assert!(store.get_layer(&sample::diff_id("gone")).await.unwrap().is_some());
    assert!(store.remove_layer(&sample::diff_id("gone")).await.unwrap());
}

pub(super) async fn what_is_used_is_not_removed(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "used").await;
    assert_eq!(store.users_of_image(&image).await.unwrap(), [""; 0]);
    let sandbox = sample::sandbox(&image);
    store.insert_sandbox(&sandbox).await.unwrap();
    store.insert_snapshot(&sample::snapshot("a-snapshot", &image)).await.unwrap();
    let expected = ["a-snapshot".to_owned(), sandbox.id.to_string()];
    assert_eq!(store.users_of_image(&image).await.unwrap(), expected);
    let error = store.remove_image(&image).await.unwrap_err();
    assert!(
        matches!(&error, MetadataError::ImageInUse { digest, users }
            if *digest == image && *users == expected),
        "{error:?}"
    );
    assert_eq!(error.code(), ErrorCode::ImageInUse);
    let layer = sample::diff_id("used");
    assert!(matches!(
        store.remove_layer(&layer).await,
        Err(MetadataError::LayerInUse { diff_id }) if diff_id == layer
    ));
    assert!(store.remove_sandbox(&sandbox.id).await.unwrap());
    assert!(store.remove_snapshot("a-snapshot").await.unwrap());
    assert!(store.remove_image(&image).await.unwrap());
    assert!(store.remove_layer(&layer).await.unwrap());
}

pub(super) async fn the_newest_image_of_a_definition(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let key = Digest::of("definition");
    assert_eq!(store.find_image_by_definition(&key).await.unwrap(), None);
    let mut images = Vec::new();
    for (name, second) in [("first", 1), ("third", 30), ("second", 2)] {
        let mut image = sample::image(name, &[]);
        image.definition_key = Some(key);
        image.created_at = sample::time(second);
        store.put_image(&image, None).await.unwrap();
        images.push(image);
    }
    store.put_image(&sample::image("other", &[]), None).await.unwrap();
    assert_eq!(store.find_image_by_definition(&key).await.unwrap(), Some(images[1].clone()));
    store.remove_image(&images[1].digest).await.unwrap();
    assert_eq!(store.find_image_by_definition(&key).await.unwrap(), Some(images[2].clone()));
    assert_eq!(store.find_image_by_definition(&Digest::of("no")).await.unwrap(), None);
}
