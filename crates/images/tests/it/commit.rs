use std::collections::BTreeMap;

use kiln_images::{ImagesError, MAX_LAYERS, NewImage};
use kiln_metadata::TemplateDefaults;
use kiln_testkit::{Compression, ImageBuilder, Tree};
use kiln_types::error::ErrorCode;
use kiln_types::{DiffId, Digest, ImageConfig, ImageName};

use crate::support::{Fixture, open};

fn config() -> ImageConfig {
    ImageConfig {
        env: BTreeMap::from([("A".into(), "x=y".into()), ("B".into(), String::new())]),
        workdir: Some("/srv".into()),
        user: Some("app".into()),
        entrypoint: vec!["/init".into()],
        cmd: vec!["serve".into()],
        labels: BTreeMap::from([("l".into(), "v".into())]),
    }
}

fn image(layers: &[DiffId], name: Option<&str>) -> NewImage {
    NewImage {
        config: config(),
        layers: layers.to_vec(),
        name: name.map(|name| name.parse().unwrap()),
        definition_key: Some(Digest::of("definition")),
        defaults: TemplateDefaults { vcpu: Some(2), memory_mib: None },
        created_by: vec!["base".into(), "run x".into()],
    }
}

#[tokio::test]
async fn equal_content_is_the_same_image_everywhere() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let fixture = Fixture::new().await;
        let base = fixture.add(&Tree::root(), &[]).await.diff_id;
        let top = fixture.add(&Tree::new().file("etc/motd", "x"), &[base]).await.diff_id;
        let record = fixture.store.commit_image(image(&[base, top], Some("app:v1"))).await.unwrap();
        let again = fixture.store.commit_image(image(&[base, top], Some("app:v2"))).await.unwrap();
        assert_eq!(record, again);
        assert_eq!(fixture.store.config(&record).await.unwrap(), config());
        let info = fixture.store.info(&record).await.unwrap();
        assert_eq!(info.names, ["app:v1", "app:v2"]);
        assert_eq!(info.config, config());
        assert_eq!(info.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>(), [base, top]);
        assert_eq!(info.size, info.layers.iter().map(|layer| layer.size).sum::<u64>());
        fixture.store.check(&record).await.unwrap();
        // It is there after a restart too.
        let store = open(fixture.dir.path()).await;
        assert_eq!(store.resolve("app:v1").await.unwrap(), record);
        digests.push(record.digest);
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn defaults_go_with_the_name() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let base = fixture.add(&Tree::root(), &[]).await.diff_id;
    let of = |vcpu, memory_mib| TemplateDefaults { vcpu, memory_mib };
    let (small, large) = (of(Some(1), None), of(Some(8), Some(4096)));
    let commit =
        |name, defaults| store.commit_image(NewImage { defaults, ..image(&[base], Some(name)) });
    let first = commit("small", small).await.unwrap();
    let second = commit("large", large).await.unwrap();
    assert_eq!(first.digest, second.digest);
    let digest = first.digest.to_string();
    store.put_template(&"plain".parse().unwrap(), &first.digest, of(None, None)).await.unwrap();
    let found = async |text: &str| store.resolve(text).await.unwrap().defaults;
    for (text, defaults) in
        [("small", small), ("large", large), ("plain", of(None, None)), (&*digest, small)]
    {
        assert_eq!(found(text).await, defaults, "{text}");
    }
    commit("small", large).await.unwrap();
    assert_eq!(found("small").await, large, "the last build of a name counts");
}

#[tokio::test]
async fn an_image_without_layers_is_one() {
    let fixture = Fixture::new().await;
    let record = fixture.store.commit_image(NewImage::default()).await.unwrap();
    assert_eq!(fixture.store.info(&record).await.unwrap().size, 0);
}

#[tokio::test]
async fn images_are_found_by_name_digest_and_prefix() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let layer = fixture.add(&Tree::root(), &[]).await.diff_id;
    let record = store.commit_image(image(&[layer], Some("app"))).await.unwrap();
    let hub: ImageName = "docker.io/library/debian:12".parse().unwrap();
    store.put_template(&hub, &record.digest, record.defaults).await.unwrap();
    let hex = record.digest.hex();
    for text in [
        "app",
        "app:latest",
        "debian:12",
        "docker.io/library/debian:12",
        &record.digest.to_string(),
        &hex,
        &hex[..12],
        &format!("sha256:{}", &hex[..20]),
    ] {
        assert_eq!(store.resolve(text).await.unwrap(), record, "{text}");
    }
    let missing = Digest::of("missing").to_string();
    for (text, code) in [
        ("other", ErrorCode::ImageNotFound),
        ("debian", ErrorCode::ImageNotFound),
        (missing.as_str(), ErrorCode::ImageNotFound),
        (&hex[..11], ErrorCode::ImageNotFound),
        ("0123456789ab", ErrorCode::ImageNotFound),
        ("", ErrorCode::InvalidReference),
        ("App", ErrorCode::InvalidReference),
        ("sha256:xyz", ErrorCode::InvalidReference),
        ("a b", ErrorCode::InvalidReference),
    ] {
        let error = store.resolve(text).await.unwrap_err();
        assert_eq!(error.code(), code, "{text}: {error}");
    }
    let error = store.put_name(&hub, &Digest::of("missing")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ImageNotFound);
}

#[tokio::test]
async fn missing_layers_and_too_many_are_refused() {
    let fixture = Fixture::new().await;
    let missing = DiffId(Digest::of("missing"));
    let error = fixture.store.commit_image(image(&[missing], None)).await.unwrap_err();
    assert!(matches!(error, ImagesError::LayerMissing { .. }), "{error:?}");
    let many = vec![missing; MAX_LAYERS + 1];
    let error = fixture.store.commit_image(image(&many, None)).await.unwrap_err();
    assert!(matches!(error, ImagesError::TooManyLayers { .. }), "{error:?}");
    fixture.assert_empty().await;
}

#[tokio::test]
async fn foreign_images_are_kept_byte_for_byte() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let tree = Tree::root();
    let layer = fixture.add(&tree, &[]).await.diff_id;
    let foreign = ImageBuilder::new().layer(&tree, Compression::Gzip).docker().build();
    let config = config_of(&foreign);
    let name: ImageName = "foreign".parse().unwrap();
    let record =
        store.import_image(&foreign.manifest, &config, vec![layer], Some(&name)).await.unwrap();
    assert_eq!(record.digest, foreign.digest);
    assert_eq!(store.blobs().read(&record.digest).unwrap(), foreign.manifest);
    assert_eq!(store.blobs().read(&record.config_digest).unwrap(), config);
    assert_eq!(store.config(&record).await.unwrap().cmd, ["/bin/sh"]);
}

#[tokio::test]
async fn parts_that_do_not_belong_together_are_refused() {
    let fixture = Fixture::new().await;
    let tree = Tree::root();
    let layer = fixture.add(&tree, &[]).await.diff_id;
    let other = fixture.add(&Tree::root().dir("x"), &[]).await.diff_id;
    let builder = ImageBuilder::new().layer(&tree, Compression::Gzip);
    let good = builder.build();
    let lying = builder.clone().diff_ids(vec![other]).build();
    let relative = builder.clone().config(serde_json::json!({ "WorkingDir": "srv" })).build();
    let config = config_of(&good);
    for (manifest, config, layers, part) in [
        (&good.manifest, &config, vec![other], "the config names the layers"),
        (&good.manifest, &config, vec![layer, other], "1 layers, not 2"),
        (&lying.manifest, &config, vec![layer], "but the config is"),
        (&lying.manifest, &config_of(&lying), vec![layer], "the config names the layers"),
        (&relative.manifest, &config_of(&relative), vec![layer], "WorkingDir"),
        (&b"{}".to_vec(), &config, vec![layer], "not usable"),
    ] {
        let error = fixture.store.import_image(manifest, config, layers, None).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRequest);
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error}: {}", source.unwrap_or_default());
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(fixture.store.metadata().list_images(None, 10).await.unwrap(), []);
    assert_eq!(fixture.store.blobs().list().unwrap().len(), 2);
}

fn config_of(image: &kiln_testkit::TestImage) -> Vec<u8> {
    let manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    let digest: Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    image.blobs[&digest].clone()
}
