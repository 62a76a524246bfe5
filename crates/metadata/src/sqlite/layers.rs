//! Tables `layers` and `blob_diff_ids`.

use kiln_types::{DiffId, Digest};
use sqlx::query;
use sqlx::sqlite::SqliteRow;

use super::{Result, SqliteStore, column, is_foreign_key_violation};
use crate::{LayerRecord, MetadataError};

fn record(row: &SqliteRow) -> Result<LayerRecord> {
    Ok(LayerRecord {
        diff_id: column::parsed(row, "layers.diff_id")?,
        size: column::number(row, "layers.size")?,
        needs_parents: column::plain(row, "layers.needs_parents")?,
    })
}

pub(super) async fn put(store: &SqliteStore, layer: &LayerRecord) -> Result<()> {
    let statement = query(
        "INSERT INTO layers (diff_id, size, needs_parents) VALUES (?1, ?2, ?3)
         ON CONFLICT (diff_id) DO UPDATE
         SET size = excluded.size, needs_parents = excluded.needs_parents",
    )
    .bind(layer.diff_id.to_string())
    .bind(column::from_u64("layers.size", layer.size)?)
    .bind(layer.needs_parents);
    store.execute(statement, || format!("store layer {}", layer.diff_id)).await?;
    Ok(())
}

pub(super) async fn get(store: &SqliteStore, diff_id: &DiffId) -> Result<Option<LayerRecord>> {
    let statement = query("SELECT diff_id, size, needs_parents FROM layers WHERE diff_id = ?1")
        .bind(diff_id.to_string());
    let row = store.row(statement, || format!("read layer {diff_id}")).await?;
    row.as_ref().map(record).transpose()
}

pub(super) async fn get_all(store: &SqliteStore, diff_ids: &[DiffId]) -> Result<Vec<LayerRecord>> {
    let statement = query(
        "SELECT diff_id, size, needs_parents FROM json_each(?1) JOIN layers ON diff_id = value
         ORDER BY key",
    )
    .bind(column::from_json(&diff_ids));
    let rows = store.rows(statement, || format!("read {} layers", diff_ids.len())).await?;
    rows.iter().map(record).collect()
}

pub(super) async fn remove(store: &SqliteStore, diff_id: &DiffId) -> Result<bool> {
    let statement = query("DELETE FROM layers WHERE diff_id = ?1").bind(diff_id.to_string());
    match store.execute(statement, || format!("remove layer {diff_id}")).await {
        Ok(removed) => Ok(removed > 0),
        Err(error) if is_foreign_key_violation(&error) => {
            Err(MetadataError::LayerInUse { diff_id: *diff_id })
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn list(store: &SqliteStore) -> Result<Vec<LayerRecord>> {
    let statement = query("SELECT diff_id, size, needs_parents FROM layers ORDER BY seq DESC");
    let rows = store.rows(statement, || "list layers".to_owned()).await?;
    rows.iter().map(record).collect()
}

pub(super) async fn list_unused(store: &SqliteStore) -> Result<Vec<LayerRecord>> {
    let statement = query(
        "SELECT diff_id, size, needs_parents FROM layers
         WHERE NOT EXISTS (SELECT 1 FROM image_layers WHERE layer = diff_id)
         AND NOT EXISTS (SELECT 1 FROM steps WHERE layer = diff_id) ORDER BY seq DESC",
    );
    let rows = store.rows(statement, || "list unused layers".to_owned()).await?;
    rows.iter().map(record).collect()
}

pub(super) async fn put_blob_diff_id(
    store: &SqliteStore,
    compressed: &Digest,
    diff_id: &DiffId,
) -> Result<()> {
    let statement = query(
        "INSERT INTO blob_diff_ids (compressed, diff_id) VALUES (?1, ?2)
         ON CONFLICT (compressed) DO UPDATE SET diff_id = excluded.diff_id",
    )
    .bind(compressed.to_string())
    .bind(diff_id.to_string());
    store.execute(statement, || format!("store the diffID of blob {compressed}")).await?;
    Ok(())
}

pub(super) async fn get_blob_diff_id(
    store: &SqliteStore,
    compressed: &Digest,
) -> Result<Option<DiffId>> {
    let statement = query("SELECT diff_id FROM blob_diff_ids WHERE compressed = ?1")
        .bind(compressed.to_string());
    let row = store.row(statement, || format!("read the diffID of blob {compressed}")).await?;
    row.as_ref().map(|row| column::parsed(row, "blob_diff_ids.diff_id")).transpose()
}
