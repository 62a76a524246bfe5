//! A flipped byte anywhere in the database is reported, or changes nothing that is in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_metadata::conformance::sample;
use kiln_metadata::{ApiKeyRecord, BasePin, DamageKind, MetadataStore, SqliteStore, StepRecord};
use kiln_types::{Digest, KeyId, StepKey};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};
use tempfile::TempDir;

/// How many bytes of each block are flipped, one after the other; `KILN_TEST_MATRIX=full` for all
/// places that [`places`] knows.
fn places() -> Vec<usize> {
    if std::env::var("KILN_TEST_MATRIX").is_ok_and(|value| value == "full") {
        (0..512).step_by(37).chain([511]).collect()
    } else {
        vec![usize::MAX]
    }
}

/// Without a disk to wait for, where there is such a place.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

/// A database with rows in every table, closed.
async fn filled(path: &Path) {
    let store = SqliteStore::open(path).await.unwrap();
    let image = sample::stored_image(&store, "one").await;
    let other = sample::stored_image(&store, "two").await;
    for slot in 0..3 {
        let mut sandbox = sample::sandbox(&image);
        sandbox.slot = Some(slot);
        store.insert_sandbox(&sandbox).await.unwrap();
    }
    store.insert_snapshot(&sample::snapshot("saved", &other)).await.unwrap();
    store.put_build(&sample::build()).await.unwrap();
    let layer = sample::layer("layer");
    store.put_layer(&layer).await.unwrap();
    store.put_blob_diff_id(&image, &layer.diff_id).await.unwrap();
    let step = StepRecord { key: StepKey::from(Digest::of("s")), layer: Some(layer.diff_id) };
    store.put_step(&step).await.unwrap();
    let pin = BasePin {
        base: "catalog:x".to_owned(),
        image,
        source: "archive".to_owned(),
        resolved_at: sample::time(1),
    };
    store.put_base_pin(&pin).await.unwrap();
    store.put_source(&image, &[layer.diff_id], "r.test/a@sha256:00").await.unwrap();
    let key = ApiKeyRecord {
        id: KeyId::new(),
        secret_hash: Digest::of("secret"),
        label: "first".to_owned(),
        created_at: sample::time(2),
    };
    store.put_api_key(&key).await.unwrap();
    store.reserve_slot(10).await.unwrap();
    // Some that went again, so that there are free pages and gaps.
    for number in 0..120 {
        store.put_image(&sample::image(&format!("{number}"), &[]), None).await.unwrap();
    }
    for number in 0..60 {
        let image = sample::image(&format!("{number}"), &[]).digest;
        store.remove_image(&image).await.unwrap();
    }
    let verified = store.verify().await.unwrap();
    assert_eq!(verified.damage, []);
    assert!(verified.rows > 40, "{verified:?}");
    store.close().await;
    assert!(!path.with_extension("db-wal").exists(), "all of it is in the one file");
}

/// Every row of every table, as SQLite writes values down.
async fn dump(path: &Path) -> Result<Vec<String>, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            .fetch_all(&mut connection)
            .await?;
    let mut rows = Vec::new();
    for table in tables {
        let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?1)")
            .bind(table.clone())
            .fetch_all(&mut connection)
            .await?;
        let columns: Vec<_> = columns.iter().map(|name| format!("quote({name})")).collect();
        let sql = format!("SELECT {} FROM {table}", columns.join(" || ',' || "));
        for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await? {
            rows.push(format!("{table}: {}", row.try_get::<String, _>(0)?));
        }
    }
    connection.close().await?;
    rows.sort();
    Ok(rows)
}

/// Nothing may wait for ever, whatever the file says.
const PATIENCE: Duration = Duration::from_mins(1);

/// What is said of the database in `path`; nothing if all is well.
async fn reported(path: &Path) -> Option<String> {
    let opened = tokio::time::timeout(PATIENCE, SqliteStore::open(path)).await;
    let store = match opened.expect("opening comes to an end") {
        Ok(store) => store,
        Err(error) => return Some(format!("open: {error}")),
    };
    let verified = tokio::time::timeout(PATIENCE, store.verify()).await;
    let said = match verified.expect("verifying comes to an end") {
        Ok(verified) => verified.damage.first().map(|damage| format!("{damage:?}")),
        Err(error) => Some(format!("verify: {error}")),
    };
    store.close().await;
    said
}

fn copy(bytes: &[u8], directory: &TempDir) -> PathBuf {
    let path = directory.path().join("damaged.db");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(directory.path().join(format!("damaged.db{suffix}")));
    }
    fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "the numbers of a full run are for the documentation")]
async fn a_flipped_byte_is_reported_or_changes_nothing() {
    let directory = directory();
    let path = directory.path().join("kiln.db");
    filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let before = dump(&copy(&whole, &directory)).await.unwrap();
    let (mut found, mut harmless) = (0, 0);
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for number in 0..whole.len() / 512 {
        for place in places() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let place = if place == usize::MAX { (random >> 33) as usize % 512 } else { place };
            let bit = 1_u8 << ((random >> 60) % 8);
            let mut bytes = whole.clone();
            // Where something is written, if anything is in this block.
            let block = &mut bytes[number * 512..][..512];
            let written = (0..512).map(|step| (place + step) % 512).find(|at| block[*at] != 0);
            let place = written.unwrap_or(place);
            block[place] ^= bit;
            let path = copy(&bytes, &directory);
            match reported(&path).await {
                Some(_) => found += 1,
                None => {
                    let after = dump(&path).await.unwrap();
                    assert!(after == before, "byte {place} of block {number}, bit {bit:#x}");
                    harmless += 1;
                }
            }
        }
    }
    println!("database: {found} flips reported, {harmless} without any effect");
    assert!(found > 100, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_file_is_reported() {
    let directory = directory();
    let path = directory.path().join("kiln.db");
    filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let before = dump(&copy(&whole, &directory)).await.unwrap();
    // An empty file is a new database: that there was another one has to be known by other means.
    for size in (512..whole.len()).step_by(512) {
        let path = copy(&whole[..size], &directory);
        // What is cut off of a page that nothing uses is missed by nobody.
        if reported(&path).await.is_none() {
            assert!(dump(&path).await.unwrap() == before, "cut off at {size}");
        }
    }
}

async fn tamper(path: &Path, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(path).foreign_keys(false);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_kiln_did_not_write_are_named() {
    for (sql, subject, problem) in [
        ("UPDATE layers SET size = size + 1", "layers sha256:", "not as Kiln wrote it"),
        ("UPDATE sandboxes SET image = 'x' WHERE rowid = 1", "sandboxes sbx_", "not as Kiln"),
        ("DELETE FROM image_names", "image_names ", "is gone"),
        ("INSERT INTO slots (slot) VALUES (77)", "slots 77", "not written by Kiln"),
        (
            "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'images'",
            "sqlite_sequence images",
            "not as",
        ),
        (
            "UPDATE _sqlx_migrations SET description = 'x' WHERE version = 2",
            "_sqlx_migrations 2",
            "not as",
        ),
        ("UPDATE row_sums SET sum = x'00' WHERE tbl = 'builds'", "builds bld_", "not as"),
        ("DROP INDEX steps_by_layer", "sqlite_schema index steps_by_layer", "is gone"),
    ] {
        let directory = directory();
        let path = directory.path().join("kiln.db");
        filled(&path).await;
        tamper(&path, sql).await;
        let store = SqliteStore::open(&path).await.unwrap();
        let damage = store.verify().await.unwrap().damage;
        let named = damage
            .iter()
            .any(|damage| damage.subject.starts_with(subject) && damage.problem.contains(problem));
        assert!(named, "{sql}: {damage:?}");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dangling_references_are_found_and_rows_can_be_dropped() {
    let directory = directory();
    let path = directory.path().join("kiln.db");
    filled(&path).await;
    tamper(&path, "UPDATE steps SET layer = 'sha256:0000000000000000000000000000000000000000000000000000000000000000'").await;
    let store = SqliteStore::open(&path).await.unwrap();
    let damage = store.verify().await.unwrap().damage;
    assert!(damage.iter().any(|damage| damage.kind == DamageKind::Reference), "{damage:?}");
    let row = damage.iter().find(|damage| damage.kind == DamageKind::Row).unwrap();
    let (table, key) = row.subject.split_once(' ').unwrap();
    assert_eq!(table, "steps");
    store.drop_row(table, key).await.unwrap();
    assert_eq!(store.verify().await.unwrap().damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_older_schema_get_checksums() {
    let directory = directory();
    let path = directory.path().join("kiln.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let all = sqlx::migrate!("migrations/sqlite");
    let old: Vec<_> = all.iter().filter(|migration| migration.version <= 2).cloned().collect();
    Migrator::with_migrations(old).run(&mut connection).await.unwrap();
    let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
    let (layer, image, config) = (digest("1"), digest("2"), digest("3"));
    let pulled = "reference:r.test/team/app:v1";
    let sql = format!(
        "INSERT INTO layers (diff_id, size, needs_parents) VALUES ('{layer}', 5, 0);
         INSERT INTO images (digest, manifest_size, config_digest, config_size, created_at)
         VALUES ('{image}', 1, '{config}', 2, '2026-01-01T00:00:00.000000000Z');
         INSERT INTO image_layers VALUES ('{image}', 0, '{layer}');
         INSERT INTO base_pins VALUES ('{pulled}', '{image}', 'registry', '2026-01-01T00:00:00Z');
         INSERT INTO steps VALUES ('{config}', '{layer}');"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let store = SqliteStore::open(&path).await.unwrap();
    let verified = store.verify().await.unwrap();
    assert_eq!(verified.damage, []);
    assert!(verified.rows > 5, "{verified:?}");
    let source = store.get_image_source(&image.parse().unwrap()).await.unwrap();
    assert_eq!(source, Some(format!("r.test/team/app:v1@{image}")));
    let layer = kiln_types::DiffId(layer.parse().unwrap());
    assert_eq!(store.get_layer_source(&layer).await.unwrap(), source);
    assert!(store.list_steps().await.unwrap()[0].used_at.is_some());
    store.close().await;
    tamper(&path, "UPDATE layers SET size = 6").await;
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.verify().await.unwrap().damage.len(), 1);
    store.close().await;
}
