//! What needs a driver: creations that overlap with other requests, and links that break.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use kiln_images::NewImage;
use kiln_types::DiffId;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::fixture::{Answer, Fixture};

/// Asks for a sandbox, and returns when the driver is about to start it.
async fn begin_create(fixture: &Arc<Fixture>, body: Value) -> JoinHandle<Answer> {
    fixture.driver.pause();
    let before = fixture.driver.creates();
    let asking = Arc::clone(fixture);
    let asked =
        tokio::spawn(async move { asking.ask(Method::POST, "/v1/sandboxes", Some(body)).await });
    let deadline = Instant::now() + Duration::from_secs(10);
    while fixture.driver.creates() == before {
        assert!(Instant::now() < deadline && !asked.is_finished(), "it was never started");
        tokio::task::yield_now().await;
    }
    asked
}

/// An image with one layer.
async fn layered(fixture: &Fixture, name: &str) -> DiffId {
    let end_of_archive = std::io::Cursor::new(vec![0; 1024]);
    let images = &fixture.app.images;
    let layer = images.import_layer(Box::new(end_of_archive), None, &[]).await.unwrap();
    let new = NewImage {
        name: Some(name.parse().unwrap()),
        layers: vec![layer.diff_id],
        created_by: vec!["test".to_owned()],
        ..NewImage::default()
    };
    images.commit_image(new).await.unwrap();
    layer.diff_id
}

#[tokio::test]
async fn an_image_that_is_removed_meanwhile_keeps_its_layers_for_as_long_as_it_takes() {
    for (starts, status, code, text) in
        [(true, 404, "image_not_found", "`base`"), (false, 500, "internal", "start anything")]
    {
        let fixture = Arc::new(Fixture::new().await);
        let layer = layered(&fixture, "base").await;
        let images = &fixture.app.images;
        fixture.driver.work(starts);
        let creating = begin_create(&fixture, json!({"image": "base"})).await;
        let removed = fixture.ask(Method::DELETE, "/v1/images/base", None).await;
        assert_eq!(removed.status, StatusCode::OK, "{}", removed.body);
        images.prove_layers(&[layer]).await.unwrap();
        fixture.driver.resume();
        creating.await.unwrap().is_problem(status, code, text);
        assert_eq!(fixture.driver.running(), 0);
        assert!(!images.has_layer(&layer).await.unwrap(), "the layer is left");
        assert_eq!(fixture.get("/v1/sandboxes").await.body["items"], json!([]));
    }
}

#[tokio::test]
async fn an_image_in_use_keeps_its_layers_when_another_sandbox_cannot_be_made() {
    let fixture = Arc::new(Fixture::new().await);
    let layer = layered(&fixture, "base").await;
    let body = json!({"image": "base"});
    let failed = fixture.ask(Method::POST, "/v1/sandboxes", Some(body)).await;
    failed.is_problem(500, "internal", "start anything");
    assert!(fixture.app.images.has_layer(&layer).await.unwrap());
}

#[tokio::test]
async fn a_name_that_is_being_given_is_refused_before_anything_starts() {
    let fixture = Arc::new(Fixture::new().await);
    fixture.image("base").await;
    fixture.driver.work(true);
    let body = json!({"image": "base", "name": "box"});
    let creating = begin_create(&fixture, body.clone()).await;
    let taken = fixture.ask(Method::POST, "/v1/sandboxes", Some(body)).await;
    taken.is_problem(409, "name_in_use", "box");
    assert_eq!(fixture.driver.creates(), 1);
    // What does not answer yet is not there yet.
    assert_eq!(fixture.get("/v1/sandboxes").await.body["items"], json!([]));
    fixture.driver.resume();
    assert_eq!(creating.await.unwrap().status, StatusCode::CREATED);
    let listed = fixture.get("/v1/sandboxes").await.body;
    assert_eq!(listed["items"][0]["name"], "box");
    assert_eq!(listed["items"][0]["status"], "running");
}

#[tokio::test]
async fn a_lost_link_to_an_agent_is_made_anew() {
    let fixture = Fixture::new().await;
    fixture.image("base").await;
    fixture.driver.work(true);
    let body = json!({"image": "base", "name": "box"});
    let made = fixture.ask(Method::POST, "/v1/sandboxes", Some(body)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let mkdir = || fixture.ask(Method::POST, "/v1/sandboxes/box/files/mkdir?path=/x", None);
    assert_eq!(mkdir().await.status, StatusCode::NO_CONTENT);

    fixture.driver.lose_links().await;
    // The next call may still meet the old link, and then says so; none after it does.
    let first = mkdir().await;
    if first.status != StatusCode::NO_CONTENT {
        first.is_problem(503, "agent_unavailable", "does not answer");
    }
    assert_eq!(mkdir().await.status, StatusCode::NO_CONTENT);

    // One that has ended is not reached again by that.
    assert_eq!(
        fixture.ask(Method::POST, "/v1/sandboxes/box/stop", None).await.body["status"],
        "stopped"
    );
    mkdir().await.is_problem(409, "sandbox_not_running", "kiln start");
}
