//! Registries that fail now and then.

use std::time::{Duration, Instant};

use kiln_registry::{PullProgress, RegistryConfig};
use kiln_testkit::{Action, Compression, Fault, ImageBuilder, Registry, TestImage, Tree};
use kiln_types::error::ErrorCode;

use crate::support::{Fixture, config, image, text};

fn large() -> TestImage {
    ImageBuilder::new().layer(&Tree::noise(5, 4, 500_000), Compression::Gzip).build()
}

fn retries(fixture: &Fixture) -> usize {
    let events = fixture.events();
    events.iter().filter(|event| matches!(event, PullProgress::Retrying { .. })).count()
}

#[tokio::test]
async fn a_dropped_connection_is_continued() {
    let registry = Registry::start().await;
    let image = large();
    let layer = image.layers[0].to_string();
    registry.put("app", "v1", &image);
    registry.fault(Fault::times(3, &layer, Action::DropAfter(400_000)));
    let fixture = Fixture::new().await;
    let record = fixture.pull(&registry).await.unwrap();
    fixture.assert_has(&record, &image).await;
    assert_eq!(retries(&fixture), 3);
    // What came was not asked for again.
    let requests = registry.requests();
    let ranges: Vec<u64> = requests
        .iter()
        .filter(|seen| seen.path.contains(&layer))
        .map(|seen| {
            seen.range.as_deref().map_or(0, |range| range[6..range.len() - 1].parse().unwrap())
        })
        .collect();
    assert_eq!(ranges.len(), 4);
    assert!(ranges.windows(2).all(|pair| pair[0] < pair[1]), "{ranges:?}");
}

#[tokio::test]
async fn without_ranges_it_begins_anew() {
    for unsatisfiable in [false, true] {
        let registry = Registry::start().await;
        let image = large();
        let layer = image.layers[0].to_string();
        registry.put("app", "v1", &image);
        registry.fault(Fault::once(&layer, Action::DropAfter(600_000)));
        if unsatisfiable {
            registry.fault(Fault::once(&layer, Action::Status { status: 416, retry_after: None }));
        }
        registry.fault(Fault::once(&layer, Action::NoRange));
        let fixture = Fixture::new().await;
        let record = fixture.pull(&registry).await.unwrap();
        fixture.assert_has(&record, &image).await;
    }
}

#[tokio::test]
async fn documents_are_asked_for_again() {
    for path in ["/manifests/", "/blobs/"] {
        for action in [
            Action::DropAfter(50),
            Action::Status { status: 500, retry_after: None },
            Action::Status { status: 503, retry_after: Some("0".into()) },
        ] {
            let registry = Registry::start().await;
            let image = image();
            registry.put("app", "v1", &image);
            registry.fault(Fault::times(2, path, action.clone()));
            let fixture = Fixture::new().await;
            let record = fixture.pull(&registry).await.unwrap();
            fixture.assert_has(&record, &image).await;
            assert_eq!(retries(&fixture), 2, "{path} {action:?}");
        }
    }
}

#[tokio::test]
async fn a_wish_to_wait_is_heeded_within_limits() {
    let registry = Registry::start().await;
    let image = image();
    registry.put("app", "v1", &image);
    let throttle =
        |seconds: &str| Action::Status { status: 429, retry_after: Some(seconds.into()) };
    registry.fault(Fault::once("/manifests/v1", throttle("1")));
    let fixture = Fixture::new().await;
    let begun = Instant::now();
    fixture.pull(&registry).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());

    registry.fault(Fault::once("/manifests/v1", throttle("3600")));
    let error = Fixture::new().await.pull(&registry).await.unwrap_err();
    assert!(text(&error).contains("429") && text(&error).contains("3600 s"), "{}", text(&error));
}

#[tokio::test]
async fn in_the_end_it_is_given_up() {
    for (path, action, parts) in [
        ("/manifests/", Action::Status { status: 500, retry_after: None }, ["manifest v1", "500"]),
        ("/blobs/", Action::Status { status: 502, retry_after: None }, ["config sha256:", "502"]),
        (
            "/blobs/",
            Action::Status { status: 418, retry_after: None },
            ["config sha256:", "418: TEST planned"],
        ),
        ("LAYER", Action::DropAfter(1000), ["layer sha256:", "could not get"]),
        ("LAYER", Action::Status { status: 500, retry_after: None }, ["layer sha256:", "500"]),
        ("LAYER", Action::Truncate(1000), ["layer sha256:", "ended after 1000 of"]),
    ] {
        let registry = Registry::start().await;
        let image = large();
        registry.put("app", "v1", &image);
        let path = path.replace("LAYER", &image.layers[0].to_string());
        registry.fault(Fault::always(path, action.clone()));
        let fixture = Fixture::new().await;
        let error = fixture.pull(&registry).await.unwrap_err();
        let text = text(&error);
        assert_eq!(error.code(), ErrorCode::RegistryError);
        for part in parts.iter().copied().chain([registry.host().as_str(), "/app"]) {
            assert!(text.contains(part), "{action:?} {part}: {text}");
        }
        assert!(!text.contains('\n'), "{text}");
        assert!(registry.requests().len() < 10, "{} requests", registry.requests().len());
        fixture.assert_empty().await;
    }
}

#[tokio::test]
async fn one_lost_layer_ends_the_others() {
    let registry = Registry::start().await;
    let mut builder = ImageBuilder::new();
    for seed in 0..8 {
        builder = builder.layer(&Tree::noise(seed, 2, 200_000), Compression::Gzip);
    }
    let image = builder.build();
    registry.put("app", "v1", &image);
    registry.remove_blob("app", &image.layers[1]);
    let fixture = Fixture::new().await;
    let error = fixture.pull(&registry).await.unwrap_err();
    let text = text(&error);
    assert!(text.contains(&image.layers[1].to_string()) && text.contains("404"), "{text}");
    fixture.assert_empty().await;
}

#[tokio::test]
async fn what_does_not_exist_is_said_at_once() {
    let registry = Registry::start().await;
    let fixture = Fixture::new().await;
    let error = fixture.pull(&registry).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ImageNotFound);
    assert_eq!(registry.requests().len(), 1);
    fixture.assert_empty().await;
}

#[tokio::test]
async fn nobody_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let fixture = Fixture::new().await;
    let config = RegistryConfig { attempts: 3, ..config(&[&host]) };
    let error = fixture.pull_with(config, &format!("{host}/app:v1")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RegistryError);
    assert!(text(&error).contains(&format!("could not get manifest v1 of {host}/app")));
    assert_eq!(retries(&fixture), 2);
}

#[tokio::test]
async fn a_silent_server_is_left() {
    // It takes the connection and says nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let fixture = Fixture::new().await;
    let config = RegistryConfig { attempts: 1, read_timeout_ms: 200, ..config(&[&host]) };
    let error = fixture.pull_with(config, &format!("{host}/app:v1")).await.unwrap_err();
    assert!(text(&error).contains("could not get manifest v1"), "{}", text(&error));
}

/// Never silent, and never done.
#[tokio::test]
async fn a_body_that_drips_is_given_up() {
    let image = large();
    let layer = image.layers[0].to_string();
    for (path, part) in [
        ("/manifests/", "manifest v1"),
        ("/blobs/", "config sha256:"),
        (layer.as_str(), "layer sha256:"),
    ] {
        let registry = Registry::start().await;
        registry.put("app", "v1", &image);
        registry.fault(Fault::always(path, Action::Drip(Duration::from_millis(20))));
        let host = registry.host();
        let config = RegistryConfig { attempts: 2, read_timeout_ms: 200, ..config(&[&host]) };
        let fixture = Fixture::new().await;
        let begun = Instant::now();
        let error = fixture.pull_with(config, &format!("{host}/app:v1")).await.unwrap_err();
        let text = text(&error);
        assert!(text.contains(part) && text.contains("too slowly"), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_eq!(error.code(), ErrorCode::RegistryError);
        fixture.assert_empty().await;
    }
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let registry = Registry::start().await;
    registry.put("app", "v1", &image());
    registry.fault(Fault::always("/", Action::Redirect(format!("http://{}", registry.host()))));
    let fixture = Fixture::new().await;
    let error = fixture.pull(&registry).await.unwrap_err();
    assert!(text(&error).contains("more than 10 in a row"), "{}", text(&error));
    assert!(registry.requests().len() <= 12, "{} requests", registry.requests().len());
}

/// Headers without an end, and more of them than anybody needs.
#[tokio::test]
async fn endless_headers_are_an_error() {
    use tokio::io::AsyncWriteExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
                while stream.write_all(&[b'x'; 1 << 12]).await.is_ok() {}
            });
        }
    });
    let fixture = Fixture::new().await;
    let config = RegistryConfig { attempts: 2, read_timeout_ms: 2000, ..config(&[&host]) };
    let error = fixture.pull_with(config, &format!("{host}/app:v1")).await.unwrap_err();
    server.abort();
    assert!(text(&error).contains("could not get manifest v1"), "{}", text(&error));
    fixture.assert_empty().await;
}
