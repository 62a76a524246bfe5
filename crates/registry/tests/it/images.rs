//! Images of every form, as they ought to be.

use kiln_registry::{PullProgress, RegistryClient, default_name};
use kiln_testkit::{Compression, ImageBuilder, Registry, Tree, index_of};
use kiln_types::Reference;
use kiln_types::error::ErrorCode;

use crate::support::{Fixture, config, image, text};

#[tokio::test]
async fn by_tag_and_by_digest() {
    let registry = Registry::start().await;
    let image = image();
    registry.put("team/app", "v1", &image);
    let host = registry.host();
    let client = RegistryClient::new(config(&[&host])).unwrap();
    for reference in [format!("{host}/team/app:v1"), format!("{host}/team/app@{}", image.digest)] {
        let fixture = Fixture::new().await;
        let parsed: Reference = reference.parse().unwrap();
        assert_eq!(client.resolve(&parsed).await.unwrap(), image.digest);
        let record = fixture.pull_by(&client, &reference).await.unwrap();
        fixture.assert_has(&record, &image).await;
        let events = fixture.events();
        assert!(
            matches!(&events[0], PullProgress::Resolved { digest, layers: 3, .. } if *digest == image.digest)
        );
        let done = events.iter().filter(|event| matches!(event, PullProgress::LayerDone { .. }));
        assert_eq!(done.count(), 3);
        assert_eq!(events.last(), Some(&PullProgress::Finished { digest: image.digest }));
        assert!(events.iter().all(|event| !event.to_string().contains('\n')));
    }
}

#[tokio::test]
async fn every_kind_of_layer() {
    for compression in
        [Compression::None, Compression::Gzip, Compression::GzipMembers(4), Compression::Zstd]
    {
        for docker in [false, true] {
            let builder = ImageBuilder::new().layer(&Tree::noise(3, 2, 50_000), compression);
            let image = if docker { builder.docker() } else { builder }.build();
            let registry = Registry::start().await;
            registry.put("app", "v1", &image);
            let fixture = Fixture::new().await;
            let record = fixture.pull(&registry).await.unwrap();
            fixture.assert_has(&record, &image).await;
        }
    }
}

#[tokio::test]
async fn the_platform_of_this_host_is_taken_from_an_index() {
    let build = |text: &str| {
        ImageBuilder::new().layer(&Tree::root().file("etc/for", text), Compression::Gzip)
    };
    let (here, other) =
        if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
    let wanted = build("here").build();
    let foreign = build("there").platform("linux", other).build();
    let attestation = build("note").platform("unknown", "unknown").build();
    let index = index_of(&[
        ("unknown", "unknown", attestation),
        ("linux", other, foreign.clone()),
        ("linux", here, wanted.clone()),
        ("windows", here, foreign.clone()),
    ]);
    let registry = Registry::start().await;
    registry.put("app", "v1", &index);
    let fixture = Fixture::new().await;
    let record = fixture.pull(&registry).await.unwrap();
    fixture.assert_has(&record, &wanted).await;
    let host = registry.host();
    let client = RegistryClient::new(config(&[&host])).unwrap();
    let reference = format!("{host}/app:v1").parse().unwrap();
    assert_eq!(client.resolve(&reference).await.unwrap(), index.digest);

    let foreign_only =
        index_of(&[("linux", other, foreign.clone()), ("windows", here, foreign.clone())]);
    for (tag, image) in [("index", &foreign_only), ("single", &foreign)] {
        registry.put("app", tag, image);
        let fixture = Fixture::new().await;
        let reference = format!("{host}/app:{tag}");
        let error = fixture.pull_by(&client, &reference).await.unwrap_err();
        let text = text(&error);
        assert!(text.contains(&format!("not made for linux/{here}")), "{text}");
        assert!(text.contains(&format!("linux/{other}")), "{text}");
        fixture.assert_empty().await;
    }
}

#[tokio::test]
async fn what_is_there_is_not_fetched() {
    let registry = Registry::start().await;
    let base = Tree::root();
    let first = ImageBuilder::new().layer(&base, Compression::Gzip).build();
    let second = ImageBuilder::new()
        .layer(&base, Compression::Zstd)
        .layer(&Tree::new().file("etc/x", "y"), Compression::Gzip)
        .build();
    registry.put("app", "v1", &first);
    registry.put("app", "v2", &second);
    let host = registry.host();
    let fixture = Fixture::new().await;
    let client = RegistryClient::new(config(&[&host])).unwrap();
    fixture.pull(&registry).await.unwrap();
    // The same layer under another compression is the same layer.
    let record = fixture.pull_by(&client, &format!("{host}/app:v2")).await.unwrap();
    fixture.assert_has(&record, &second).await;
    assert_eq!(registry.blob_requests(&second.layers[0]), 0);
    // A whole image costs one request for its manifest, and none if it is pinned.
    let before = registry.requests().len();
    fixture.pull_by(&client, &format!("{host}/app:v2")).await.unwrap();
    assert_eq!(registry.requests().len(), before + 1);
    let pinned = format!("{host}/app@{}", second.digest);
    fixture.pull_by(&client, &pinned).await.unwrap();
    assert_eq!(registry.requests().len(), before + 1);
    // Unless something of it is lost.
    std::fs::remove_file(fixture.store.blobs().path(&second.diff_ids[1].0)).unwrap();
    let record = fixture.pull_by(&client, &pinned).await.unwrap();
    fixture.assert_has(&record, &second).await;
    assert_eq!(registry.blob_requests(&second.layers[1]), 2);
}

#[tokio::test]
async fn equal_layers_come_once() {
    let registry = Registry::start().await;
    let (base, twice) = (Tree::root(), Tree::noise(1, 4, 40_000));
    let image = ImageBuilder::new()
        .layer(&base, Compression::Gzip)
        .layer(&twice, Compression::Gzip)
        .layer(&twice, Compression::Gzip)
        .build();
    registry.put("app", "v1", &image);
    let other =
        ImageBuilder::new().layer(&twice, Compression::Gzip).config(serde_json::json!({})).build();
    registry.put("app", "v2", &other);
    let host = registry.host();
    let fixture = Fixture::new().await;
    let client = RegistryClient::new(config(&[&host])).unwrap();
    let references = ["v1", "v1", "v2"].map(|tag| format!("{host}/app:{tag}"));
    let pulls = references.iter().map(|reference| fixture.pull_by(&client, reference));
    let records = futures_util::future::try_join_all(pulls).await.unwrap();
    assert_eq!(records[0], records[1]);
    for record in &records {
        fixture.store.check(record).await.unwrap();
    }
    // One pull of the two equal ones did the work; the other image may have come at the same time.
    assert!(registry.blob_requests(&image.layers[1]) <= 2);
    assert_eq!(registry.blob_requests(&image.layers[0]), 1);
    assert_eq!(fixture.store.metadata().list_layers().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_pull_can_run_on_a_task_of_its_own() {
    let registry = Registry::start().await;
    let image = image();
    registry.put("app", "v1", &image);
    let fixture = std::sync::Arc::new(Fixture::new().await);
    let task = {
        let fixture = std::sync::Arc::clone(&fixture);
        tokio::spawn(async move { fixture.pull(&registry).await })
    };
    let record = task.await.unwrap().unwrap();
    fixture.assert_has(&record, &image).await;
}

#[tokio::test]
async fn an_ended_pull_leaves_nothing() {
    let registry = Registry::start().await;
    registry.put("app", "v1", &image());
    registry.fault(kiln_testkit::Fault::always(
        "/blobs/",
        kiln_testkit::Action::Status { status: 503, retry_after: Some("30".into()) },
    ));
    let fixture = Fixture::new().await;
    let pull = fixture.pull(&registry);
    let ended = tokio::time::timeout(std::time::Duration::from_millis(300), pull).await;
    assert!(ended.is_err(), "the pull should still wait: {ended:?}");
    fixture.assert_empty().await;
}

#[tokio::test]
async fn what_is_no_image_is_refused_by_name() {
    let layer = || ImageBuilder::new().layer(&Tree::root(), Compression::Gzip);
    let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let chart = "application/vnd.cncf.helm.config.v1+json";
    let wrong = ImageBuilder::new().layer(&Tree::root(), Compression::None).diff_ids(vec![]);
    for (image, parts) in [
        (layer().layer_type(nondistributable).build(), [nondistributable, "vendor"]),
        (layer().layer_type(foreign).build(), [foreign, "vendor"]),
        (layer().layer_type("text/plain").build(), ["text/plain", "not that of a layer"]),
        (layer().config_type(chart).build(), [chart, "no image"]),
        (wrong.build(), ["0 layers", "the manifest 1"]),
        (layer().config(serde_json::json!({ "Env": ["X"] })).build(), ["config.Env", "`X`"]),
    ] {
        let registry = Registry::start().await;
        registry.put("app", "v1", &image);
        let fixture = Fixture::new().await;
        let error = fixture.pull(&registry).await.unwrap_err();
        let text = text(&error);
        assert_eq!(error.code(), ErrorCode::RegistryError, "{text}");
        for part in parts.iter().copied().chain([registry.host().as_str(), "app"]) {
            assert!(text.contains(part), "{part}: {text}");
        }
        fixture.assert_empty().await;
    }
}

#[test]
fn default_names() {
    for (reference, expected) in [
        ("debian", Some("docker.io/library/debian:latest")),
        ("127.0.0.1:5000/a/b:v1", Some("127.0.0.1:5000/a/b:v1")),
        (
            &format!("debian:12@{}", kiln_types::Digest::of("x")),
            Some("docker.io/library/debian:12"),
        ),
        (&format!("debian@{}", kiln_types::Digest::of("x")), None),
    ] {
        let name = default_name(&reference.parse().unwrap()).map(|name| name.to_string());
        assert_eq!(name.as_deref(), expected, "{reference}");
    }
}
