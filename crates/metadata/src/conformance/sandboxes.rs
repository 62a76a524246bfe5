//! Sandboxes.

use kiln_types::api::{ResourceLimits, SandboxStatus};
use kiln_types::{ErrorCode, SandboxId};

use super::{Fixture, sample};
use crate::MetadataError;

pub(super) async fn sandboxes_come_back_whole(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    let other = sample::stored_image(store.as_ref(), "y").await;
    let mut sandbox = sample::sandbox(&image);
    store.insert_sandbox(&sandbox).await.unwrap();
    assert_eq!(store.get_sandbox(&sandbox.id).await.unwrap(), Some(sandbox.clone()));

    sandbox.name = Some("web".into());
    sandbox.status = SandboxStatus::Running;
    sandbox.image = "y".into();
    sandbox.image_digest = other;
    sandbox.env.insert("A".into(), "1".into());
    sandbox.limits =
        ResourceLimits { vcpu: None, memory_mib: Some(u32::MAX), pids: Some(1), disk_mib: Some(7) };
    sandbox.slot = Some(5);
    sandbox.address = Some("10.0.0.6".into());
    sandbox.reason = Some("it was stopped".into());
    sandbox.created_at = sample::time(11);
    store.update_sandbox(&sandbox).await.unwrap();
    assert_eq!(store.get_sandbox(&sandbox.id).await.unwrap(), Some(sandbox.clone()));
    assert_eq!(store.find_sandbox("web").await.unwrap(), Some(sandbox.clone()));
    assert_eq!(store.find_sandbox("WEB").await.unwrap(), None);
    assert_eq!(store.list_sandboxes(None, 10).await.unwrap(), [sandbox.clone()]);

    for status in [SandboxStatus::Stopped, SandboxStatus::Removing] {
        sandbox.status = status;
        store.update_sandbox(&sandbox).await.unwrap();
        assert_eq!(store.get_sandbox(&sandbox.id).await.unwrap(), Some(sandbox.clone()));
    }
    assert!(store.remove_sandbox(&sandbox.id).await.unwrap());
    assert!(!store.remove_sandbox(&sandbox.id).await.unwrap());
    assert_eq!(store.find_sandbox("web").await.unwrap(), None);
}

pub(super) async fn any_text_survives(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    let mut texts: Vec<String> =
        ["", "\n", "a\r\nb\n\n", "'\"\\", "%s ?1 $1 :a @b", "\u{1}\u{7f}"].map(String::from).into();
    texts.push("дев 開発 🧱 \u{200b}\u{feff}\u{10ffff}".into());
    texts.push("e\u{301}\u{fffd}".into());
    texts.push("x".repeat(1 << 20));
    for (number, text) in texts.iter().enumerate() {
        let mut sandbox = sample::sandbox(&image);
        sandbox.env.insert(format!("V{text}"), text.clone());
        sandbox.env.insert("LAST".into(), format!("{text}\n"));
        sandbox.name = Some(format!("{number} {text}"));
        sandbox.image.clone_from(text);
        sandbox.reason = Some(text.clone());
        store.insert_sandbox(&sandbox).await.unwrap();
        let found = store.get_sandbox(&sandbox.id).await.unwrap();
        assert!(found.as_ref() == Some(&sandbox), "text {number}");
        let found = store.find_sandbox(&format!("{number} {text}")).await.unwrap();
        assert!(found == Some(sandbox), "name {number}");
    }
}

pub(super) async fn a_name_is_used_once(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    let mut first = sample::sandbox(&image);
    first.name = Some("web".into());
    let mut second = sample::sandbox(&image);
    second.name.clone_from(&first.name);
    second.slot = Some(0);
    store.insert_sandbox(&first).await.unwrap();
    let check = |error: MetadataError| {
        assert!(
            matches!(&error, MetadataError::NameInUse { what: "a sandbox", name } if name == "web"),
            "{error:?}"
        );
        assert_eq!(error.to_string(), "a sandbox named `web` exists already");
        assert_eq!(error.code(), ErrorCode::NameInUse);
    };
    check(store.insert_sandbox(&second).await.unwrap_err());
    assert_eq!(store.get_sandbox(&second.id).await.unwrap(), None);
    second.name = None;
    store.insert_sandbox(&second).await.unwrap();
    store.insert_sandbox(&sample::sandbox(&image)).await.unwrap();
    second.name.clone_from(&first.name);
    check(store.update_sandbox(&second).await.unwrap_err());
    store.remove_sandbox(&first.id).await.unwrap();
    store.update_sandbox(&second).await.unwrap();
    assert_eq!(store.find_sandbox("web").await.unwrap(), Some(second));
}

pub(super) async fn updates_reach_only_what_is_there(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    let mut sandbox = sample::sandbox(&image);
    let gone = |error: MetadataError, id: SandboxId| {
        assert!(
            matches!(error, MetadataError::SandboxMissing { id: named } if named == id),
            "{error:?}"
        );
        assert_eq!(error.code(), ErrorCode::SandboxNotFound);
    };
    gone(store.update_sandbox(&sandbox).await.unwrap_err(), sandbox.id);
    store.insert_sandbox(&sandbox).await.unwrap();
    store.remove_sandbox(&sandbox.id).await.unwrap();
    sandbox.slot = Some(3);
    gone(store.update_sandbox(&sandbox).await.unwrap_err(), sandbox.id);
    assert_eq!(store.list_sandboxes(None, 1).await.unwrap(), []);
    assert_eq!(store.reserve_slot(1).await.unwrap(), 0);
    store.insert_sandbox(&sandbox).await.unwrap();
    assert!(store.insert_sandbox(&sandbox).await.is_err(), "an id is used once");
}

pub(super) async fn all_is_there_after_reopen(fixture: &dyn Fixture) {
    let store = fixture.fresh().await;
    let image = sample::stored_image(store.as_ref(), "x").await;
    let name = sample::name("x");
    store.put_name(&name, &image).await.unwrap();
    let mut sandbox = sample::sandbox(&image);
    sandbox.slot = Some(store.reserve_slot(4).await.unwrap());
    sandbox.env.insert("A".into(), "1".into());
    store.insert_sandbox(&sandbox).await.unwrap();
    let snapshot = sample::snapshot("s", &image);
    store.insert_snapshot(&snapshot).await.unwrap();
    for _ in 0..2 {
        // Not closed first: a daemon that is killed closes nothing.
        let store = fixture.reopen().await;
        assert_eq!(store.list_sandboxes(None, 10).await.unwrap(), [sandbox.clone()]);
        assert_eq!(store.find_snapshot("s").await.unwrap(), Some(snapshot.clone()));
        assert_eq!(store.resolve_name(&name).await.unwrap(), Some(image));
        assert_eq!(store.list_images(None, 10).await.unwrap(), [sample::image("x", &["x"])]);
        assert_eq!(store.list_layers().await.unwrap(), [sample::layer("x")]);
    }
}
