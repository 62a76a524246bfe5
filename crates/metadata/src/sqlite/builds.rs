//! Table `builds`.

use kiln_types::BuildId;
use sqlx::query;
use sqlx::sqlite::SqliteRow;

use super::{Result, SqliteStore, column};
use crate::BuildRecord;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, status, name, definition, definition_key, image, steps_cached, failure,
             created_at, finished_at FROM builds ",
            $rest
        )
    };
}

fn record(row: &SqliteRow) -> Result<BuildRecord> {
    Ok(BuildRecord {
        id: column::parsed(row, "builds.id")?,
        status: column::word(row, "builds.status")?,
        name: column::plain(row, "builds.name")?,
        definition: column::json(row, "builds.definition")?,
        definition_key: column::parsed_option(row, "builds.definition_key")?,
        image: column::parsed_option(row, "builds.image")?,
        steps_cached: column::number(row, "builds.steps_cached")?,
        failure: column::json_option(row, "builds.failure")?,
        created_at: column::parsed(row, "builds.created_at")?,
        finished_at: column::parsed_option(row, "builds.finished_at")?,
    })
}

pub(super) async fn put(store: &SqliteStore, build: &BuildRecord) -> Result<()> {
    let statement = query(
        "INSERT INTO builds (id, status, name, definition, definition_key, image, steps_cached,
         failure, created_at, finished_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET status = excluded.status, name = excluded.name,
         definition = excluded.definition, definition_key = excluded.definition_key,
         image = excluded.image, steps_cached = excluded.steps_cached,
         failure = excluded.failure, created_at = excluded.created_at,
         finished_at = excluded.finished_at",
    )
    .bind(build.id.to_string())
    .bind(column::from_word(build.status))
    .bind(build.name.clone())
    .bind(column::from_json(&build.definition))
    .bind(build.definition_key.map(|key| key.to_string()))
    .bind(build.image.map(|image| image.to_string()))
    .bind(build.steps_cached)
    .bind(build.failure.as_ref().map(column::from_json))
    .bind(column::from_time(build.created_at))
    .bind(build.finished_at.map(column::from_time));
    store.execute(statement, || format!("store build {}", build.id)).await?;
    Ok(())
}

pub(super) async fn get(store: &SqliteStore, id: &BuildId) -> Result<Option<BuildRecord>> {
    let statement = query(select!("WHERE id = ?1")).bind(id.to_string());
    let row = store.row(statement, || format!("read build {id}")).await?;
    row.as_ref().map(record).transpose()
}

pub(super) async fn list(
    store: &SqliteStore,
    cursor: Option<&BuildId>,
    limit: u32,
) -> Result<Vec<BuildRecord>> {
    let statement = query(select!("WHERE id < ?1 ORDER BY id DESC LIMIT ?2"))
        .bind(cursor.map_or_else(column::above_all_ids, BuildId::to_string))
        .bind(limit);
    let rows = store.rows(statement, || "list builds".to_owned()).await?;
    rows.iter().map(record).collect()
}

pub(super) async fn list_running(store: &SqliteStore) -> Result<Vec<BuildRecord>> {
    let statement = query(select!("WHERE status = 'running' ORDER BY id DESC"));
    let rows = store.rows(statement, || "list running builds".to_owned()).await?;
    rows.iter().map(record).collect()
}
