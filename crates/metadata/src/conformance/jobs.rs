//! Steps, pins, builds and keys.

use kiln_types::api::BuildStatus;
use kiln_types::event::BuildFailure;
use kiln_types::{Base, Digest, FileStep, KeyId, RunCommand, Step, StepKey};

use super::{Fixture, sample};
use crate::{ApiKeyRecord, BasePin, StepRecord};

pub(super) async fn steps_and_pins(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    for layer in ["a", "b"] {
        store.put_layer(&sample::layer(layer)).await.unwrap();
    }
    let unused = async || {
        let layers = store.list_unused_layers().await.unwrap();
        layers.into_iter().map(|layer| layer.diff_id).collect::<Vec<_>>()
    };
    assert_eq!(unused().await, ["b", "a"].map(sample::diff_id));
    let key = |name: &str| StepKey::from(Digest::of(name));
    let put = [("1", Some("a")), ("2", None), ("3", Some("b")), ("4", Some("a")), ("1", Some("b"))];
    for (name, layer) in put {
        let step = StepRecord { key: key(name), layer: layer.map(sample::diff_id) };
        store.put_step(&step).await.unwrap();
        assert_eq!(store.get_step(&step.key).await.unwrap(), Some(step));
    }
    assert_eq!(unused().await, []);
    assert_eq!(store.get_step(&key("5")).await.unwrap(), None);
    assert_eq!(store.remove_steps_of_layer(&sample::diff_id("b")).await.unwrap(), 2);
    assert_eq!(store.remove_steps_of_layer(&sample::diff_id("b")).await.unwrap(), 0);
    assert_eq!(unused().await, [sample::diff_id("b")]);
    assert_eq!(store.get_step(&key("1")).await.unwrap(), None);
    assert!(store.get_step(&key("2")).await.unwrap().is_some());
    store.remove_layer(&sample::diff_id("a")).await.unwrap();
    assert_eq!(store.get_step(&key("4")).await.unwrap(), None, "it went with its layer");

    let image = sample::stored_image(store.as_ref(), "base").await;
    assert_eq!(unused().await, [sample::diff_id("b")], "an image needs its layers");
    for (source, second) in [("an archive", 1), ("a registry", 2)] {
        let pin = BasePin {
            base: "catalog:debian-12".into(),
            image,
            source: source.into(),
            resolved_at: sample::time(second),
        };
        store.put_base_pin(&pin).await.unwrap();
        assert_eq!(store.get_base_pin("catalog:debian-12").await.unwrap(), Some(pin));
    }
    assert_eq!(store.get_base_pin("catalog:debian").await.unwrap(), None);
}

pub(super) async fn builds_come_back_whole(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let mut build = sample::build();
    store.put_build(&build).await.unwrap();
    assert_eq!(store.get_build(&build.id).await.unwrap(), Some(build.clone()));

    build.name = Some("dev:1".into());
    build.definition.base = Base::Rootfs("/srv/root \"fs\"".into());
    build.definition.steps = vec![
        Step::Run { command: RunCommand::Argv(vec!["a\tb".into(), String::new()]) },
        Step::Env { vars: [("A".into(), "1\n2".into())].into() },
        Step::File(FileStep { path: "/é".into(), content_base64: "AA==".into(), mode: 0o4755 }),
    ];
    build.definition_key = Some(Digest::of("key"));
    build.steps_cached = 3;
    build.status = BuildStatus::Failed;
    build.failure = Some(BuildFailure {
        code: kiln_types::ErrorCode::StorageFull,
        step: Some(2),
        command: Some("false".into()),
        exit_code: Some(-1),
        last_lines: vec!["\u{1b}[31mno\u{1b}[0m".into(), "\u{fffd}".into()],
        message: "it failed".into(),
    });
    build.finished_at = Some(sample::time(9));
    store.put_build(&build).await.unwrap();
    assert_eq!(store.get_build(&build.id).await.unwrap(), Some(build.clone()));

    build.status = BuildStatus::Succeeded;
    build.failure = None;
    // A build may name an image that is not here (any more).
    build.image = Some(Digest::of("image"));
    store.put_build(&build).await.unwrap();
    assert_eq!(store.list_builds(None, 10).await.unwrap(), [build]);
}

pub(super) async fn running_builds_are_listed_after_reopen(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let mut running = Vec::new();
    for status in
        [BuildStatus::Running, BuildStatus::Failed, BuildStatus::Running, BuildStatus::Succeeded]
    {
        let mut build = sample::build();
        build.status = status;
        store.put_build(&build).await.unwrap();
        if status == BuildStatus::Running {
            running.insert(0, build);
        }
    }
    drop(store);
    let store = fixture.reopen().await;
    assert_eq!(store.list_running_builds().await.unwrap(), running);
    running[0].status = BuildStatus::Failed;
    store.put_build(&running[0]).await.unwrap();
    assert_eq!(store.list_running_builds().await.unwrap(), running[1..]);
}

pub(super) async fn keys(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    assert_eq!(store.list_api_keys().await.unwrap(), []);
    let mut keys: Vec<_> = ["first", "second"]
        .map(|label| ApiKeyRecord {
            id: KeyId::new(),
            secret_hash: Digest::of(label),
            label: label.into(),
            created_at: sample::time(0),
        })
        .into();
    for key in &keys {
        store.put_api_key(key).await.unwrap();
    }
    keys[0].label = "changed".into();
    store.put_api_key(&keys[0]).await.unwrap();
    keys.reverse();
    assert_eq!(store.list_api_keys().await.unwrap(), keys);
}
