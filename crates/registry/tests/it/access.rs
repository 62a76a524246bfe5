//! Private registries, and where secrets do not go.

use kiln_registry::{Credential, RegistryConfig};
use kiln_testkit::{Access, Action, Fault, Registry};
use kiln_types::error::ErrorCode;

use crate::support::{Fixture, config, image, text};

fn credential(user: &str, password: &str, token_hosts: &[&str]) -> Credential {
    Credential {
        username: user.into(),
        password: password.into(),
        token_hosts: token_hosts.iter().map(ToString::to_string).collect(),
    }
}

fn private(registry: &Registry, credential: Option<Credential>) -> RegistryConfig {
    let mut config = config(&[&registry.host(), &registry.token_host()]);
    config.credentials.extend(credential.map(|credential| (registry.host(), credential)));
    config
}

#[tokio::test]
async fn basic() {
    let registry = Registry::start_with(Access::basic("alice", "s3cret")).await;
    let image = image();
    registry.put("app", "v1", &image);
    let reference = format!("{}/app:v1", registry.host());
    let fixture = Fixture::new().await;
    for (credential, part) in [
        (None, "no credentials are configured for 127.0.0.1:"),
        (Some(credential("alice", "wrong", &[])), "credentials of user `alice`"),
    ] {
        let config = private(&registry, credential);
        let error = fixture.pull_with(config, &reference).await.unwrap_err();
        let text = text(&error);
        assert_eq!(error.code(), ErrorCode::RegistryError);
        assert!(text.contains(part) && text.contains("401") && text.contains("/app"), "{text}");
        assert!(!text.contains("wrong"), "{text}");
        fixture.assert_empty().await;
    }
    let config = private(&registry, Some(credential("alice", "s3cret", &[])));
    let record = fixture.pull_with(config, &reference).await.unwrap();
    fixture.assert_has(&record, &image).await;
}

#[tokio::test]
async fn basic_from_a_docker_configuration() {
    let registry = Registry::start_with(Access::basic("alice", "s3cret")).await;
    let image = image();
    registry.put("app", "v1", &image);
    let fixture = Fixture::new().await;
    let path = fixture.dir.path().join("config.json");
    let auths = serde_json::json!({ "auths": { registry.host(): { "auth": "YWxpY2U6czNjcmV0" } } });
    std::fs::write(&path, auths.to_string()).unwrap();
    let config = RegistryConfig { docker_config: Some(path), ..private(&registry, None) };
    let reference = format!("{}/app:v1", registry.host());
    let record = fixture.pull_with(config, &reference).await.unwrap();
    fixture.assert_has(&record, &image).await;
}

#[tokio::test]
async fn bearer() {
    let registry = Registry::start_with(Access::bearer("alice", "s3cret")).await;
    let image = image();
    registry.put("app", "v1", &image);
    let reference = format!("{}/app:v1", registry.host());
    let hosts = [registry.token_host()];
    let hosts = [hosts[0].as_str()];
    let fixture = Fixture::new().await;
    for (credential, part) in [
        (None, "no credentials are configured"),
        (Some(credential("alice", "wrong", &hosts)), "credentials of user `alice`"),
        (Some(credential("alice", "s3cret", &[])), "token_hosts"),
    ] {
        let config = private(&registry, credential);
        let error = fixture.pull_with(config, &reference).await.unwrap_err();
        let text = text(&error);
        assert!(text.contains(part) && text.contains(&registry.token_host()), "{text}");
        fixture.assert_empty().await;
    }
    let config = private(&registry, Some(credential("alice", "s3cret", &hosts)));
    let record = fixture.pull_with(config, &reference).await.unwrap();
    fixture.assert_has(&record, &image).await;
    // The password went to the token server only, the token to the registry only.
    for seen in registry.requests() {
        let Some(authorization) = seen.authorization else { continue };
        let scheme = if seen.path == "/token" { "Basic " } else { "Bearer " };
        assert!(authorization.starts_with(scheme), "{} {authorization}", seen.path);
    }
}

#[tokio::test]
async fn bearer_for_everybody() {
    let registry = Registry::start_with(Access::Bearer { user: None }).await;
    let image = image();
    registry.put("app", "v1", &image);
    let fixture = Fixture::new().await;
    let reference = format!("{}/app:v1", registry.host());
    let record = fixture.pull_with(private(&registry, None), &reference).await.unwrap();
    fixture.assert_has(&record, &image).await;
    // One token serves all requests for the repository.
    let tokens = registry.requests().iter().filter(|seen| seen.path == "/token").count();
    assert!(tokens < 4, "{tokens} tokens were asked for");
}

#[tokio::test]
async fn a_busy_token_server_is_asked_again() {
    let registry = Registry::start_with(Access::Bearer { user: None }).await;
    let image = image();
    registry.put("app", "v1", &image);
    let busy =
        |count| Fault::times(count, "/token", Action::Status { status: 503, retry_after: None });
    registry.fault(busy(2));
    let fixture = Fixture::new().await;
    let reference = format!("{}/app:v1", registry.host());
    let record = fixture.pull_with(private(&registry, None), &reference).await.unwrap();
    fixture.assert_has(&record, &image).await;
    registry.fault(busy(usize::MAX));
    let error = Fixture::new().await.pull_with(private(&registry, None), &reference).await;
    let text = text(&error.unwrap_err());
    assert!(text.contains(&registry.token_host()) && text.contains("status 503"), "{text}");
}

#[tokio::test]
async fn an_expired_token_is_renewed() {
    let registry = Registry::start_with(Access::Bearer { user: None }).await;
    let (first, second) = (image(), kiln_testkit::ImageBuilder::new().build());
    registry.put("app", "v1", &first);
    registry.put("app", "v2", &second);
    let host = registry.host();
    let fixture = Fixture::new().await;
    let client = kiln_registry::RegistryClient::new(private(&registry, None)).unwrap();
    fixture.pull_by(&client, &format!("{host}/app:v1")).await.unwrap();
    registry.expire_tokens();
    let record = fixture.pull_by(&client, &format!("{host}/app:v2")).await.unwrap();
    fixture.assert_has(&record, &second).await;
}

#[tokio::test]
async fn a_redirect_does_not_carry_secrets_away() {
    let registry = Registry::start_with(Access::basic("alice", "s3cret")).await;
    let storage = Registry::start().await;
    let image = image();
    registry.put("app", "v1", &image);
    storage.put("app", "v1", &image);
    registry
        .fault(Fault::always("/blobs/", Action::Redirect(format!("http://{}", storage.host()))));
    let reference = format!("{}/app:v1", registry.host());
    let mut config = private(&registry, Some(credential("alice", "s3cret", &[])));
    let fixture = Fixture::new().await;
    // Without TLS it is not followed at all unless the host is known as one of that kind.
    let error = fixture.pull_with(config.clone(), &reference).await.unwrap_err();
    assert!(text(&error).contains("not followed"), "{}", text(&error));
    fixture.assert_empty().await;
    assert_eq!(storage.requests(), []);
    config.plain_http.push(storage.host());
    let record = fixture.pull_with(config, &reference).await.unwrap();
    fixture.assert_has(&record, &image).await;
    assert!(storage.requests().len() >= 4);
    assert!(storage.requests().iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn a_token_server_cannot_send_the_password_on() {
    let registry = Registry::start_with(Access::bearer("alice", "s3cret")).await;
    let thief = Registry::start_with(Access::Bearer { user: None }).await;
    registry.put("app", "v1", &image());
    registry
        .fault(Fault::always("/token", Action::Redirect(format!("http://{}", thief.token_host()))));
    let host = registry.token_host();
    let mut config = private(&registry, Some(credential("alice", "s3cret", &[&host])));
    config.plain_http.extend([thief.host(), thief.token_host()]);
    let fixture = Fixture::new().await;
    let reference = format!("{}/app:v1", registry.host());
    fixture.pull_with(config, &reference).await.unwrap_err();
    assert!(!thief.requests().is_empty());
    assert!(thief.requests().iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn plain_http_only_by_configuration() {
    let registry = Registry::start().await;
    registry.put("app", "v1", &image());
    let fixture = Fixture::new().await;
    let reference = format!("{}/app:v1", registry.host());
    let error = fixture.pull_with(config(&[]), &reference).await.unwrap_err();
    assert!(text(&error).contains("could not get manifest v1"), "{}", text(&error));
    assert_eq!(registry.requests(), []);
}
