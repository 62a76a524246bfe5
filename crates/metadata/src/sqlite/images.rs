//! Tables `images` and `image_layers`.

use kiln_types::{DiffId, Digest, ImageName};
use sqlx::query;
use sqlx::sqlite::SqliteRow;

use super::{Result, SqliteStore, Write, column, is_foreign_key_violation, names};
use crate::{ImageRecord, MetadataError, TemplateDefaults};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT seq, digest, manifest_size, config_digest, config_size, definition_key,
             default_vcpu, default_memory_mib, created_at,
             (SELECT json_group_array(layer ORDER BY position)
              FROM image_layers WHERE image = images.digest) AS layers
             FROM images ",
            $rest
        )
    };
}

const USERS: &str = "SELECT id AS user FROM sandboxes WHERE image_digest = ?1
    UNION ALL SELECT name FROM snapshots WHERE image = ?1 ORDER BY user";

fn record(row: &SqliteRow) -> Result<ImageRecord> {
    Ok(ImageRecord {
        digest: column::parsed(row, "images.digest")?,
        manifest_size: column::number(row, "images.manifest_size")?,
        config_digest: column::parsed(row, "images.config_digest")?,
        config_size: column::number(row, "images.config_size")?,
        layers: column::json(row, "images.layers")?,
        definition_key: column::parsed_option(row, "images.definition_key")?,
        defaults: TemplateDefaults {
            vcpu: column::number_option(row, "images.default_vcpu")?,
            memory_mib: column::number_option(row, "images.default_memory_mib")?,
        },
        created_at: column::parsed(row, "images.created_at")?,
    })
}

pub(super) async fn put(
    store: &SqliteStore,
    image: &ImageRecord,
    name: Option<&ImageName>,
) -> Result<()> {
    let digest = image.digest.to_string();
    let statement = query(
        "INSERT INTO images (digest, manifest_size, config_digest, config_size, definition_key,
         default_vcpu, default_memory_mib, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (digest) DO UPDATE SET manifest_size = excluded.manifest_size,
         config_digest = excluded.config_digest, config_size = excluded.config_size,
         definition_key = excluded.definition_key, default_vcpu = excluded.default_vcpu,
         default_memory_mib = excluded.default_memory_mib, created_at = excluded.created_at",
    )
    .bind(digest.clone())
    .bind(column::from_u64("images.manifest_size", image.manifest_size)?)
    .bind(image.config_digest.to_string())
    .bind(column::from_u64("images.config_size", image.config_size)?)
    .bind(image.definition_key.map(|key| key.to_string()))
    .bind(image.defaults.vcpu)
    .bind(image.defaults.memory_mib)
    .bind(column::from_time(image.created_at));
    let mut write = store.begin(|| format!("store image {digest}")).await?;
    write.execute(statement).await?;
    write.execute(query("DELETE FROM image_layers WHERE image = ?1").bind(digest.clone())).await?;
    put_layers(&mut write, digest, &image.layers).await?;
    if let Some(name) = name {
        names::point(&mut write, name, &image.digest, image.defaults).await?;
    }
    write.commit().await
}

async fn put_layers(write: &mut Write, digest: String, layers: &[DiffId]) -> Result<()> {
    let layers = column::from_json(&layers);
    let statement = query(
        "INSERT INTO image_layers (image, position, layer)
         SELECT ?1, key, value FROM json_each(?2)",
    )
    .bind(digest)
    .bind(layers.clone());
    let error = match write.execute(statement).await {
        Ok(_) => return Ok(()),
        Err(error) if is_foreign_key_violation(&error) => error,
        Err(error) => return Err(error),
    };
    let missing = query(
        "SELECT value AS diff_id FROM json_each(?1)
         WHERE value NOT IN (SELECT diff_id FROM layers) ORDER BY key LIMIT 1",
    )
    .bind(layers);
    match write.row(missing).await? {
        Some(row) => {
            Err(MetadataError::LayerMissing { diff_id: column::parsed(&row, "layers.diff_id")? })
        }
        None => Err(error),
    }
}

pub(super) async fn get(store: &SqliteStore, digest: &Digest) -> Result<Option<ImageRecord>> {
    let statement = query(select!("WHERE digest = ?1")).bind(digest.to_string());
    let row = store.row(statement, || format!("read image {digest}")).await?;
    row.as_ref().map(record).transpose()
}

pub(super) async fn find_by_definition(
    store: &SqliteStore,
    key: &Digest,
) -> Result<Option<ImageRecord>> {
    let statement =
        query(select!("WHERE definition_key = ?1 ORDER BY created_at DESC, seq DESC LIMIT 1"))
            .bind(key.to_string());
    let row = store.row(statement, || format!("find the image of definition {key}")).await?;
    row.as_ref().map(record).transpose()
}

pub(super) async fn list(
    store: &SqliteStore,
    cursor: Option<&Digest>,
    limit: u32,
) -> Result<Vec<ImageRecord>> {
    let action = || "list images".to_owned();
    let before: i64 = match cursor {
        None => i64::MAX,
        Some(cursor) => {
            let statement =
                query("SELECT seq FROM images WHERE digest = ?1").bind(cursor.to_string());
            let row = store
                .row(statement, action)
                .await?
                .ok_or_else(|| MetadataError::UnknownCursor { cursor: cursor.to_string() })?;
            column::plain(&row, "images.seq")?
        }
    };
    let rows = below(store, before, limit).await?;
    Ok(rows.into_iter().map(|(_, image)| image).collect())
}

pub(super) async fn list_below(
    store: &SqliteStore,
    place: Option<u64>,
    limit: u32,
) -> Result<Vec<(u64, ImageRecord)>> {
    let before = place.and_then(|place| i64::try_from(place).ok()).unwrap_or(i64::MAX);
    below(store, before, limit).await
}

async fn below(store: &SqliteStore, before: i64, limit: u32) -> Result<Vec<(u64, ImageRecord)>> {
    let statement =
        query(select!("WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2")).bind(before).bind(limit);
    let rows = store.rows(statement, || "list images".to_owned()).await?;
    rows.iter().map(|row| Ok((column::number(row, "images.seq")?, record(row)?))).collect()
}

pub(super) async fn remove(store: &SqliteStore, digest: &Digest) -> Result<bool> {
    let mut write = store.begin(|| format!("remove image {digest}")).await?;
    let users = users_from(&write.rows(query(USERS).bind(digest.to_string())).await?)?;
    if !users.is_empty() {
        return Err(MetadataError::ImageInUse { digest: *digest, users });
    }
    let statement = query("DELETE FROM images WHERE digest = ?1").bind(digest.to_string());
    let removed = write.execute(statement).await?;
    write.commit().await?;
    Ok(removed > 0)
}

pub(super) async fn users(store: &SqliteStore, digest: &Digest) -> Result<Vec<String>> {
    let statement = query(USERS).bind(digest.to_string());
    users_from(&store.rows(statement, || format!("find the users of image {digest}")).await?)
}

fn users_from(rows: &[SqliteRow]) -> Result<Vec<String>> {
    rows.iter().map(|row| column::plain(row, "images.user")).collect()
}
