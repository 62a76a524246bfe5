//! Whole tables at once, for those who look after the store, and what a registry can give again.

use jiff::Timestamp;
use kiln_types::{BuildId, DiffId, Digest, ImageName, StepKey};
use sqlx::{AssertSqlSafe, query};

use super::{Result, SqliteStore, column};
use crate::{BasePin, StepUse};

/// Uses of one step or pin that are closer together than this are not told apart.
const USE_GRAIN: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

pub(super) async fn names(store: &SqliteStore) -> Result<Vec<(ImageName, Digest)>> {
    let statement = query("SELECT name, image FROM image_names ORDER BY name");
    let rows = store.rows(statement, || "list the names of images".to_owned()).await?;
    rows.iter()
        .map(|row| {
            Ok((
                column::parsed(row, "image_names.name")?,
                column::parsed(row, "image_names.image")?,
            ))
        })
        .collect()
}

pub(super) async fn steps(store: &SqliteStore) -> Result<Vec<StepUse>> {
    let statement = query("SELECT key, layer, used_at FROM steps ORDER BY key");
    let rows = store.rows(statement, || "list the results of steps".to_owned()).await?;
    rows.iter()
        .map(|row| {
            Ok(StepUse {
                key: column::parsed::<Digest>(row, "steps.key")?.into(),
                layer: column::parsed_option(row, "steps.layer")?,
                used_at: column::parsed_option(row, "steps.used_at")?,
            })
        })
        .collect()
}

pub(super) async fn pins(store: &SqliteStore) -> Result<Vec<(BasePin, Option<Timestamp>)>> {
    let statement =
        query("SELECT base, image, source, resolved_at, used_at FROM base_pins ORDER BY base");
    let rows = store.rows(statement, || "list the pins of bases".to_owned()).await?;
    rows.iter()
        .map(|row| {
            let pin = BasePin {
                base: column::plain(row, "base_pins.base")?,
                image: column::parsed(row, "base_pins.image")?,
                source: column::plain(row, "base_pins.source")?,
                resolved_at: column::parsed(row, "base_pins.resolved_at")?,
            };
            Ok((pin, column::parsed_option(row, "base_pins.used_at")?))
        })
        .collect()
}

pub(super) async fn touch_steps(store: &SqliteStore, keys: &[StepKey]) -> Result<()> {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    touch(store, "steps", "key IN (SELECT value FROM json_each(?1))", column::from_json(&keys))
        .await
}

pub(super) async fn touch_pin(store: &SqliteStore, base: &str) -> Result<()> {
    touch(store, "base_pins", "base = ?1", base.to_owned()).await
}

/// Notes the use of rows, if the last one was long enough ago: mostly there is nothing to write.
async fn touch(
    store: &SqliteStore,
    table: &'static str,
    which: &'static str,
    of: String,
) -> Result<()> {
    let action = || format!("note a use of {table}");
    let now = Timestamp::now();
    let old = format!("{which} AND (used_at IS NULL OR used_at < ?2)");
    let before = column::from_time(now - USE_GRAIN);
    let look = format!("SELECT 1 FROM {table} WHERE {old} LIMIT 1");
    let look = query(AssertSqlSafe(look)).bind(of.clone()).bind(before.clone());
    if store.row(look, action).await?.is_none() {
        return Ok(());
    }
    let update = format!("UPDATE {table} SET used_at = ?3 WHERE {old}");
    let update = query(AssertSqlSafe(update)).bind(of).bind(before).bind(column::from_time(now));
    let mut write = store.begin_relaxed(action).await?;
    write.execute(update).await?;
    write.commit().await
}

pub(super) async fn remove_steps(store: &SqliteStore, keys: &[StepKey]) -> Result<u64> {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let statement = query("DELETE FROM steps WHERE key IN (SELECT value FROM json_each(?1))")
        .bind(column::from_json(&keys));
    store.execute(statement, || "remove the results of steps".to_owned()).await
}

pub(super) async fn remove_build(store: &SqliteStore, id: &BuildId) -> Result<bool> {
    let statement = query("DELETE FROM builds WHERE id = ?1 AND status <> 'running'");
    let statement = statement.bind(id.to_string());
    Ok(store.execute(statement, || format!("remove build {id}")).await? > 0)
}

pub(super) async fn put_source(
    store: &SqliteStore,
    image: &Digest,
    layers: &[DiffId],
    reference: &str,
) -> Result<()> {
    let of_image = query(
        "INSERT INTO image_sources (image, reference)
         SELECT digest, ?2 FROM images WHERE digest = ?1
         ON CONFLICT (image) DO UPDATE SET reference = ?2 WHERE reference <> ?2",
    );
    let of_layers = query(
        "INSERT INTO layer_sources (layer, reference)
         SELECT DISTINCT diff_id, ?2 FROM json_each(?1) JOIN layers ON diff_id = value WHERE true
         ON CONFLICT (layer) DO UPDATE SET reference = ?2 WHERE reference <> ?2",
    );
    let mut write = store.begin(|| format!("store where image {image} came from")).await?;
    write.execute(of_image.bind(image.to_string()).bind(reference.to_owned())).await?;
    let layers = column::from_json(&layers);
    write.execute(of_layers.bind(layers).bind(reference.to_owned())).await?;
    write.commit().await
}

pub(super) async fn image_source(store: &SqliteStore, image: &Digest) -> Result<Option<String>> {
    let statement = query("SELECT reference FROM image_sources WHERE image = ?1");
    source(store, statement.bind(image.to_string()), "image_sources.reference").await
}

pub(super) async fn layer_source(store: &SqliteStore, layer: &DiffId) -> Result<Option<String>> {
    let statement = query("SELECT reference FROM layer_sources WHERE layer = ?1");
    source(store, statement.bind(layer.to_string()), "layer_sources.reference").await
}

async fn source(
    store: &SqliteStore,
    statement: super::Query,
    what: &'static str,
) -> Result<Option<String>> {
    let row = store.row(statement, || "read where something came from".to_owned()).await?;
    row.as_ref().map(|row| column::plain(row, what)).transpose()
}
