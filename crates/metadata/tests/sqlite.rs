//! The SQLite store: the suite, and what only a file can get wrong.

use std::fs;
use std::future::poll_fn;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use kiln_metadata::conformance::{self, Fixture, sample};
use kiln_metadata::{MetadataError, MetadataStore, SqliteStore};
use kiln_types::ErrorCode;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

#[derive(Default)]
struct Directories(Mutex<Vec<TempDir>>);

impl Directories {
    async fn open_last(&self) -> Arc<dyn MetadataStore> {
        let path = self.0.lock().unwrap().last().unwrap().path().join("kiln.db");
        Arc::new(SqliteStore::open(path).await.unwrap())
    }
}

#[async_trait]
impl Fixture for Directories {
    async fn fresh(&self) -> Arc<dyn MetadataStore> {
        self.0.lock().unwrap().push(TempDir::new().unwrap());
        self.open_last().await
    }

    async fn reopen(&self) -> Arc<dyn MetadataStore> {
        self.open_last().await
    }
}

/// Runs SQL on a database behind the store's back.
async fn tamper(path: &std::path::Path, sql: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn new_path() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("kiln.db");
    (directory, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    conformance::run(&Directories::default()).await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (_directory, path) = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let image = sample::stored_image(&store, "x").await;
    store.close().await;
    tamper(
        &path,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (999, 'from the future', TRUE, X'00', 0)",
    )
    .await;
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(
        matches!(error, MetadataError::NewerSchema { found: 999, known: 1.., .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains("written by a newer version of Kiln (schema 999"), "{text}");
    assert!(text.contains("use that version, or restore a backup"), "{text}");
    tamper(&path, "DELETE FROM _sqlx_migrations WHERE version = 999").await;
    let store = SqliteStore::open(&path).await.unwrap();
    assert!(store.get_image(&image).await.unwrap().is_some());
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let directory = TempDir::new().unwrap();
    let not_a_database = directory.path().join("text");
    fs::write(
        &not_a_database,
        "this is not a database, and long enough to be sure of it".repeat(9),
    )
    .unwrap();
    for path in
        [directory.path().join("missing/kiln.db"), directory.path().to_owned(), not_a_database]
    {
        let error = SqliteStore::open(&path).await.unwrap_err();
        assert!(matches!(error, MetadataError::Open { .. }), "{}: {error:?}", path.display());
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert_eq!(error.code(), ErrorCode::Internal);
    }
}

#[tokio::test]
async fn the_file_is_private_and_may_have_any_name() {
    let directory = TempDir::new().unwrap();
    for name in ["kiln.db", "a b?mode=memory#c%20é.db", "file:x.db", ":memory:"] {
        let path = directory.path().join(name);
        let store = SqliteStore::open(&path).await.unwrap();
        let image = sample::stored_image(&store, "x").await;
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.clone()), 0o600, "{name}");
        assert_eq!(mode(directory.path().join(format!("{name}-wal"))), 0o600, "{name}");
        store.close().await;
        let store = SqliteStore::open(&path).await.unwrap();
        assert!(store.get_image(&image).await.unwrap().is_some(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_open_at_once_share_the_database() {
    let (_directory, path) = new_path();
    let tasks: Vec<_> = (0..6)
        .map(|task| {
            let path = path.clone();
            tokio::spawn(async move {
                let store = SqliteStore::open(path).await.unwrap();
                let image = sample::stored_image(&store, &format!("{task}")).await;
                for _ in 0..10 {
                    let mut sandbox = sample::sandbox(&image);
                    sandbox.slot = Some(store.reserve_slot(60).await.unwrap());
                    store.insert_sandbox(&sandbox).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let store = SqliteStore::open(path).await.unwrap();
    let mut slots: Vec<_> = store
        .list_sandboxes(None, 100)
        .await
        .unwrap()
        .into_iter()
        .map(|sandbox| sandbox.slot.unwrap())
        .collect();
    slots.sort_unstable();
    assert_eq!(slots, (0..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn values_that_cannot_be_are_reported() {
    let (_directory, path) = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let image = sample::stored_image(&store, "x").await;
    let mut sandbox = sample::sandbox(&image);
    sandbox.slot = Some(1);
    store.insert_sandbox(&sandbox).await.unwrap();
    for (sql, what, value) in [
        ("UPDATE sandboxes SET status = 'flying'", "sandboxes.status", "flying"),
        ("UPDATE sandboxes SET status = 'running', env = '{'", "sandboxes.env", "{"),
        ("UPDATE sandboxes SET env = '{}', created_at = 'today'", "sandboxes.created_at", "today"),
        (
            "UPDATE sandboxes SET created_at = '2026-01-01T00:00:00Z'; UPDATE slots SET slot = -1",
            "sandboxes.slot",
            "-1",
        ),
    ] {
        tamper(&path, sql).await;
        match store.get_sandbox(&sandbox.id).await {
            Err(MetadataError::Corrupt { what: found, value: shown }) => {
                assert_eq!((found, shown.as_str()), (what, value));
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    tamper(&path, "UPDATE slots SET slot = 2").await;
    assert_eq!(store.get_sandbox(&sandbox.id).await.unwrap().unwrap().slot, Some(2));
}

#[tokio::test]
async fn a_dropped_call_leaves_the_store_usable() {
    let (_directory, path) = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let image = sample::stored_image(&store, "x").await;
    for patience in 0..40 {
        let mut sandbox = sample::sandbox(&image);
        sandbox.slot = Some(0);
        // Given up after some polls: at every point of the transaction sooner or later.
        let mut call = Box::pin(store.insert_sandbox(&sandbox));
        for _ in 0..patience {
            let polled = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
            if polled.is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
        drop(call);
        let whole = match store.get_sandbox(&sandbox.id).await.unwrap() {
            Some(found) => found == sandbox,
            None => true,
        };
        assert!(whole, "half a sandbox after {patience} polls");
        store.remove_sandbox(&sandbox.id).await.unwrap();
        assert_eq!(store.reserve_slot(1).await.unwrap(), 0);
        store.release_slot(0).await.unwrap();
    }
}
