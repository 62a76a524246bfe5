//! Table `api_keys`.

use sqlx::query;
use sqlx::sqlite::SqliteRow;

use super::{Result, SqliteStore, column};
use crate::ApiKeyRecord;

fn record(row: &SqliteRow) -> Result<ApiKeyRecord> {
    Ok(ApiKeyRecord {
        id: column::parsed(row, "api_keys.id")?,
        secret_hash: column::parsed(row, "api_keys.secret_hash")?,
        label: column::plain(row, "api_keys.label")?,
        created_at: column::parsed(row, "api_keys.created_at")?,
    })
}

pub(super) async fn put(store: &SqliteStore, key: &ApiKeyRecord) -> Result<()> {
    let statement = query(
        "INSERT INTO api_keys (id, secret_hash, label, created_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET secret_hash = excluded.secret_hash,
         label = excluded.label, created_at = excluded.created_at",
    )
    .bind(key.id.to_string())
    .bind(key.secret_hash.to_string())
    .bind(key.label.clone())
    .bind(column::from_time(key.created_at));
    store.execute(statement, || format!("store API key {}", key.id)).await?;
    Ok(())
}

pub(super) async fn list(store: &SqliteStore) -> Result<Vec<ApiKeyRecord>> {
    let statement =
        query("SELECT id, secret_hash, label, created_at FROM api_keys ORDER BY seq DESC");
    let rows = store.rows(statement, || "list API keys".to_owned()).await?;
    rows.iter().map(record).collect()
}
