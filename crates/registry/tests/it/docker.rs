//! The registry of the distribution project.

use kiln_registry::{Credential, RegistryClient, RegistryConfig};
use kiln_testkit::{Compression, DockerRegistry, ImageBuilder, Tree, index_of, push, skip};

use crate::support::{Fixture, config, image, text};

#[tokio::test]
async fn images_and_indexes() {
    let Some(registry) = DockerRegistry::start().await.unwrap() else {
        return skip("docker-registry is not installed");
    };
    let host = registry.host();
    let client = RegistryClient::new(config(&[&host])).unwrap();
    let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let single = image();
    let docker = ImageBuilder::new().layer(&Tree::root(), Compression::Gzip).docker().build();
    let other = ImageBuilder::new().platform("linux", "s390x").build();
    let index = index_of(&[("linux", "s390x", other), ("linux", here, single.clone())]);
    for (tag, image, expected) in
        [("single", &single, &single), ("docker", &docker, &docker), ("index", &index, &single)]
    {
        push(&host, "team/app", tag, image, None).await.unwrap();
        let fixture = Fixture::new().await;
        let reference = format!("{host}/team/app:{tag}");
        let digest = client.resolve(&reference.parse().unwrap()).await.unwrap();
        assert_eq!(digest, image.digest);
        let record = fixture.pull_by(&client, &reference).await.unwrap();
        fixture.assert_has(&record, expected).await;
        let fixture = Fixture::new().await;
        let record = fixture.pull_by(&client, &format!("{host}/team/app@{digest}")).await.unwrap();
        fixture.assert_has(&record, expected).await;
    }
    let fixture = Fixture::new().await;
    let error = fixture.pull_by(&client, &format!("{host}/team/none:v1")).await.unwrap_err();
    assert!(text(&error).contains("does not exist"), "{}", text(&error));
}

#[tokio::test]
async fn private_with_basic() {
    let Some(registry) = DockerRegistry::start_private("alice", "s3cret").await.unwrap() else {
        return skip("docker-registry or htpasswd is not installed");
    };
    let host = registry.host();
    let image = image();
    push(&host, "app", "v1", &image, Some(("alice", "s3cret"))).await.unwrap();
    let fixture = Fixture::new().await;
    let reference = format!("{host}/app:v1");
    let mut config = config(&[&host]);
    let error = fixture.pull_with(config.clone(), &reference).await.unwrap_err();
    assert!(text(&error).contains("no credentials"), "{}", text(&error));
    let credential =
        Credential { username: "alice".into(), password: "s3cret".into(), token_hosts: vec![] };
    config.credentials.insert(host, credential);
    let record = fixture.pull_with(config, &reference).await.unwrap();
    fixture.assert_has(&record, &image).await;
}

#[tokio::test]
async fn by_tls() {
    let Some(registry) = DockerRegistry::start_tls().await.unwrap() else {
        return skip("docker-registry or openssl is not installed");
    };
    let authority = registry.authority().expect("it was started with TLS").to_owned();
    let host = registry.host();
    let image = image();
    push(&host, "app", "v1", &image, None).await.unwrap_err();
    registry.push("app", "v1", &image).await.unwrap();
    let reference = format!("{host}/app:v1");
    let fixture = Fixture::new().await;
    let trusting = RegistryConfig { ca_certificates: vec![authority], ..config(&[]) };
    for (config, part) in [
        (config(&[]), "could not get manifest v1"),
        (config(&[&host]), "status 400"),
        (
            RegistryConfig { ca_certificates: vec!["/nonexistent.pem".into()], ..config(&[]) },
            "/nonexistent.pem",
        ),
    ] {
        let error = fixture.pull_with(RegistryConfig { attempts: 1, ..config }, &reference).await;
        let text = text(&error.unwrap_err());
        assert!(text.contains(part), "{text}");
        fixture.assert_empty().await;
    }
    let record = fixture.pull_with(trusting, &reference).await.unwrap();
    fixture.assert_has(&record, &image).await;
}
