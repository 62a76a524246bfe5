//! Mirrors before the registry.

use kiln_registry::{Credential, PullProgress, RegistryClient, RegistryConfig};
use kiln_testkit::{Access, Action, Fault, Registry};

use crate::support::{Fixture, config, image, text};

fn mirrored(registry: &Registry, mirrors: &[String]) -> RegistryConfig {
    let mut config = config(&[&registry.host()]);
    config.mirrors.insert(registry.host(), mirrors.to_vec());
    config
}

fn skipped(fixture: &Fixture) -> usize {
    let events = fixture.events();
    events.iter().filter(|event| matches!(event, PullProgress::SourceFailed { .. })).count()
}

#[tokio::test]
async fn the_first_that_has_it_is_taken() {
    let (registry, empty, full) =
        (Registry::start().await, Registry::start().await, Registry::start().await);
    let image = image();
    full.put("hub/app", "v1", &image);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mirrors = [
        format!("http://{gone}"),
        format!("http://{}", empty.host()),
        format!("http://{}/hub", full.host()),
    ];
    let config = mirrored(&registry, &mirrors);
    let fixture = Fixture::new().await;
    let reference = format!("{}/app:v1", registry.host());
    let client = RegistryClient::new(config.clone()).unwrap();
    assert_eq!(client.resolve(&reference.parse().unwrap()).await.unwrap(), image.digest);
    let record = fixture.pull_with(config, &reference).await.unwrap();
    fixture.assert_has(&record, &image).await;
    assert_eq!(skipped(&fixture), 2);
    assert_eq!(registry.requests(), []);
}

#[tokio::test]
async fn the_registry_comes_last_and_makes_up_for_mirrors() {
    let image = image();
    let layer = image.layers[2].to_string();
    for (action, passed_over, requests) in [
        (Action::Status { status: 404, retry_after: None }, 1, 1),
        (Action::DropAfter(5000), 1, 1),
        (Action::Corrupt, 1, 1),
        (Action::Truncate(5000), 1, 1),
        // The registry continues what the mirror began, which shows that the mirror's part is wrong.
        (Action::Replace(b"something else".to_vec()), 2, 2),
    ] {
        let (registry, mirror) = (Registry::start().await, Registry::start().await);
        registry.put("app", "v1", &image);
        mirror.put("app", "v1", &image);
        mirror.fault(Fault::always(&layer, action.clone()));
        let fixture = Fixture::new().await;
        let config = mirrored(&registry, &[format!("http://{}", mirror.host())]);
        let reference = format!("{}/app:v1", registry.host());
        let record = fixture.pull_with(config, &reference).await.unwrap();
        fixture.assert_has(&record, &image).await;
        assert_eq!(skipped(&fixture), passed_over, "{action:?}");
        // All else came from the mirror.
        assert_eq!(registry.requests().len(), requests, "{action:?}");
    }
}

#[tokio::test]
async fn when_all_fail_all_are_named() {
    let (registry, mirror) = (Registry::start().await, Registry::start().await);
    let config = mirrored(&registry, &[format!("http://{}", mirror.host())]);
    let reference = format!("{}/app:v1", registry.host());
    let fixture = Fixture::new().await;
    let error = fixture.pull_with(config, &reference).await.unwrap_err();
    let text = text(&error);
    for part in [registry.host(), mirror.host(), "404".into(), reference] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    fixture.assert_empty().await;
}

#[tokio::test]
async fn a_mirror_does_not_get_the_credentials_of_the_registry() {
    let registry = Registry::start_with(Access::basic("alice", "s3cret")).await;
    let mirror = Registry::start_with(Access::basic("mallory", "x")).await;
    let image = image();
    registry.put("app", "v1", &image);
    mirror.put("app", "v1", &image);
    let mut config = mirrored(&registry, &[format!("http://{}", mirror.host())]);
    let credential =
        Credential { username: "alice".into(), password: "s3cret".into(), token_hosts: vec![] };
    config.credentials.insert(registry.host(), credential);
    let fixture = Fixture::new().await;
    let reference = format!("{}/app:v1", registry.host());
    let record = fixture.pull_with(config, &reference).await.unwrap();
    fixture.assert_has(&record, &image).await;
    assert!(!mirror.requests().is_empty());
    assert!(mirror.requests().iter().all(|seen| seen.authorization.is_none()));
}
