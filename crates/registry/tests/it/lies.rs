//! Registries that send something else than was asked for: refused, and nothing is left.

use kiln_testkit::{Action, Compression, Fault, ImageBuilder, Registry, Tree, gzip};
use kiln_types::error::ErrorCode;
use kiln_types::{DiffId, Digest};

use crate::support::{Fixture, config, image, text};

#[tokio::test]
async fn other_content() {
    let image = image();
    let other = gzip(&Tree::root().file("evil", "x").tar());
    let layer = image.layers[2].to_string();
    for (path, action, parts) in [
        (layer.as_str(), Action::Replace(other.clone()), ["layer sha256:", ""]),
        (&layer, Action::Corrupt, ["layer sha256:", ""]),
        ("/blobs/", Action::Replace(b"{}".to_vec()), ["config sha256:", "came with digest"]),
        ("/blobs/", Action::Corrupt, ["config sha256:", "came with digest"]),
        (
            "/manifests/",
            Action::Replace(vec![b' '; 5 << 20]),
            ["manifest sha256:", "larger than 4194304"],
        ),
        ("/manifests/", Action::Corrupt, ["manifest sha256:", "came with digest"]),
    ] {
        let registry = Registry::start().await;
        registry.put("app", "v1", &image);
        registry.fault(Fault::always(path, action.clone()));
        let fixture = Fixture::new().await;
        let host = registry.host();
        let reference = format!("{host}/app@{}", image.digest);
        let error = fixture.pull_with(config(&[&host]), &reference).await.unwrap_err();
        let text = text(&error);
        assert_eq!(error.code(), ErrorCode::RegistryError, "{text}");
        for part in parts {
            assert!(text.contains(part), "{action:?} {part}: {text}");
        }
        fixture.assert_empty().await;
    }
}

#[tokio::test]
async fn a_sound_layer_that_is_another_one() {
    let (right, wrong) = (Tree::noise(1, 2, 90_000), Tree::noise(2, 2, 90_000));
    let image = ImageBuilder::new().layer(&right, Compression::None).build();
    let registry = Registry::start().await;
    registry.put("app", "v1", &image);
    registry.put_blob("app", image.layers[0], wrong.tar());
    let fixture = Fixture::new().await;
    let error = fixture.pull(&registry).await.unwrap_err();
    assert!(text(&error).contains("came with digest"), "{}", text(&error));
    fixture.assert_empty().await;
}

#[tokio::test]
async fn more_than_was_announced() {
    let image = image();
    let registry = Registry::start().await;
    registry.put("app", "v1", &image);
    let mut longer = image.blobs[&image.layers[1]].clone();
    longer.extend([0; 100]);
    registry.put_blob("app", image.layers[1], longer);
    let fixture = Fixture::new().await;
    let error = fixture.pull(&registry).await.unwrap_err();
    assert!(text(&error).contains("larger than"), "{}", text(&error));
    fixture.assert_empty().await;
}

#[tokio::test]
async fn a_config_that_names_other_layers() {
    let lie = vec![DiffId(Digest::of("lie"))];
    let first = Tree::root();
    let image = ImageBuilder::new().layer(&first, Compression::Gzip).diff_ids(lie).build();
    let registry = Registry::start().await;
    registry.put("app", "v1", &image);
    let fixture = Fixture::new().await;
    let error = fixture.pull(&registry).await.unwrap_err();
    let text = text(&error);
    assert_eq!(error.code(), ErrorCode::RegistryError);
    assert!(text.contains("unpacks to") && text.contains(&Digest::of("lie").to_string()), "{text}");
    fixture.assert_empty().await;
    // Also when the true layer is in the store.
    registry.put("app", "good", &ImageBuilder::new().layer(&first, Compression::Gzip).build());
    let host = registry.host();
    fixture.pull_with(config(&[&host]), &format!("{host}/app:good")).await.unwrap();
    let layers = fixture.store.metadata().list_layers().await.unwrap();
    fixture.pull(&registry).await.unwrap_err();
    assert_eq!(fixture.store.metadata().list_layers().await.unwrap(), layers);
    assert_eq!(fixture.store.blobs().list().unwrap().len(), 3);
}

#[tokio::test]
async fn a_layer_that_kiln_refuses() {
    let image = ImageBuilder::new()
        .layer(&Tree::root(), Compression::Gzip)
        .layer(&Tree::new().dir(".").file("a", "x").file("a/b", "below a file"), Compression::Gzip)
        .build();
    let registry = Registry::start().await;
    registry.put("app", "v1", &image);
    let fixture = Fixture::new().await;
    let error = fixture.pull(&registry).await.unwrap_err();
    let text = text(&error);
    assert_eq!(error.code(), ErrorCode::RegistryError, "{text}");
    assert!(text.contains("a/b") && text.contains(&image.diff_ids[1].to_string()), "{text}");
    fixture.assert_empty().await;
}

#[tokio::test]
async fn documents_that_are_no_manifest() {
    let json = "application/json";
    for (body, part) in [
        ("<html>login</html>", "not usable"),
        ("{}", "not usable"),
        (r#"{"schemaVersion":1,"name":"x","tag":"y","fsLayers":[]}"#, "not usable"),
        (r#"{"schemaVersion":2,"mediaType":"application/x","config":{}}"#, "application/x"),
        (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "at once"),
        (r#"{"schemaVersion":2,"layers":[],"layers":[]}"#, "not usable"),
    ] {
        let registry = Registry::start().await;
        let mut image = image();
        image.manifest = body.into();
        image.media_type = json.into();
        registry.put("app", "v1", &image);
        let fixture = Fixture::new().await;
        let error = fixture.pull(&registry).await.unwrap_err();
        let text = text(&error);
        assert!(text.contains(part) && text.contains("manifest v1"), "{text}");
        fixture.assert_empty().await;
    }
}
