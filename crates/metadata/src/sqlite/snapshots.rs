//! Table `snapshots`.

use kiln_types::{ImageName, SnapshotId};
use sqlx::query;
use sqlx::sqlite::SqliteRow;

use super::{Result, SqliteStore, column, is_foreign_key_violation, names};
use crate::{MetadataError, SnapshotRecord};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, status, image, sandbox, layer_size, skipped_sockets, created_at
             FROM snapshots ",
            $rest
        )
    };
}

fn record(row: &SqliteRow) -> Result<SnapshotRecord> {
    Ok(SnapshotRecord {
        id: column::parsed(row, "snapshots.id")?,
        name: column::plain(row, "snapshots.name")?,
        status: column::word(row, "snapshots.status")?,
        image: column::parsed(row, "snapshots.image")?,
        sandbox: column::parsed(row, "snapshots.sandbox")?,
        layer_size: column::number(row, "snapshots.layer_size")?,
        skipped_sockets: column::number(row, "snapshots.skipped_sockets")?,
        created_at: column::parsed(row, "snapshots.created_at")?,
    })
}

pub(super) async fn insert(store: &SqliteStore, snapshot: &SnapshotRecord) -> Result<()> {
    let image_name: ImageName = snapshot
        .name
        .parse()
        .map_err(|source| MetadataError::InvalidName { what: "a snapshot", source })?;
    let statement = query(
        "INSERT INTO snapshots (id, name, image_name, status, image, sandbox, layer_size,
         skipped_sockets, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (image_name) DO NOTHING",
    )
    .bind(snapshot.id.to_string())
    .bind(snapshot.name.clone())
    .bind(image_name.to_string())
    .bind(column::from_word(snapshot.status))
    .bind(snapshot.image.to_string())
    .bind(snapshot.sandbox.to_string())
    .bind(column::from_u64("snapshots.layer_size", snapshot.layer_size)?)
    .bind(column::from_u64("snapshots.skipped_sockets", snapshot.skipped_sockets)?)
    .bind(column::from_time(snapshot.created_at));
    let mut write = store.begin(|| format!("insert snapshot {}", snapshot.id)).await?;
    match write.execute(statement).await {
        Ok(0) => {
            return Err(MetadataError::NameInUse {
                what: "a snapshot",
                name: snapshot.name.clone(),
            });
        }
        Ok(_) => {}
        Err(error) if is_foreign_key_violation(&error) => {
            return Err(MetadataError::ImageMissing { digest: snapshot.image });
        }
        Err(error) => return Err(error),
    }
    names::claim(&mut write, &image_name, &snapshot.image).await?;
    write.commit().await
}

pub(super) async fn find(store: &SqliteStore, name: &str) -> Result<Option<SnapshotRecord>> {
    let Ok(image_name) = name.parse::<ImageName>() else {
        return Ok(None);
    };
    let statement = query(select!("WHERE image_name = ?1")).bind(image_name.to_string());
    let row = store.row(statement, || format!("find snapshot {name}")).await?;
    row.as_ref().map(record).transpose()
}

pub(super) async fn list(
    store: &SqliteStore,
    cursor: Option<&str>,
    limit: u32,
) -> Result<Vec<SnapshotRecord>> {
    let before = match cursor {
        None => column::above_all_ids(),
        // Names do not begin like ids; an id is a place in the list even when its row is gone.
        Some(id) if id.parse::<SnapshotId>().is_ok() => id.to_owned(),
        Some(name) => match find(store, name).await? {
            Some(snapshot) => snapshot.id.to_string(),
            None => return Err(MetadataError::UnknownCursor { cursor: name.to_owned() }),
        },
    };
    let statement =
        query(select!("WHERE id < ?1 ORDER BY id DESC LIMIT ?2")).bind(before).bind(limit);
    let rows = store.rows(statement, || "list snapshots".to_owned()).await?;
    rows.iter().map(record).collect()
}

pub(super) async fn remove(store: &SqliteStore, name: &str) -> Result<bool> {
    let Ok(image_name) = name.parse::<ImageName>() else {
        return Ok(false);
    };
    let mut write = store.begin(|| format!("remove snapshot {name}")).await?;
    // A name that was given to another image since is not the snapshot's any more.
    let unname = query(
        "DELETE FROM image_names WHERE name = ?1
         AND image = (SELECT image FROM snapshots WHERE image_name = ?1)",
    );
    write.execute(unname.bind(image_name.to_string())).await?;
    let remove = query("DELETE FROM snapshots WHERE image_name = ?1");
    let removed = write.execute(remove.bind(image_name.to_string())).await?;
    write.commit().await?;
    Ok(removed > 0)
}
