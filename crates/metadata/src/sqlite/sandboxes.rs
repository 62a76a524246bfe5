//! Table `sandboxes`.

use kiln_types::SandboxId;
use sqlx::query;
use sqlx::sqlite::SqliteRow;

use super::{Query, Result, SqliteStore, column, slots};
use super::{is_foreign_key_violation, is_unique_violation};
use crate::{MetadataError, SandboxRecord};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, status, image, image_digest, env, limits, address, reason, driver,
             created_at, (SELECT slot FROM slots WHERE sandbox = sandboxes.id) AS slot
             FROM sandboxes ",
            $rest
        )
    };
}

fn record(row: &SqliteRow) -> Result<SandboxRecord> {
    Ok(SandboxRecord {
        id: column::parsed(row, "sandboxes.id")?,
        name: column::plain(row, "sandboxes.name")?,
        status: column::word(row, "sandboxes.status")?,
        image: column::plain(row, "sandboxes.image")?,
        image_digest: column::parsed(row, "sandboxes.image_digest")?,
        env: column::json(row, "sandboxes.env")?,
        limits: column::json(row, "sandboxes.limits")?,
        slot: column::number_option(row, "sandboxes.slot")?,
        address: column::plain(row, "sandboxes.address")?,
        reason: column::plain(row, "sandboxes.reason")?,
        driver: column::plain(row, "sandboxes.driver")?,
        created_at: column::parsed(row, "sandboxes.created_at")?,
    })
}

/// Binds the columns in the order in which both statements below number them.
fn bind(statement: Query, sandbox: &SandboxRecord) -> Query {
    statement
        .bind(sandbox.id.to_string())
        .bind(sandbox.name.clone())
        .bind(column::from_word(sandbox.status))
        .bind(sandbox.image.clone())
        .bind(sandbox.image_digest.to_string())
        .bind(column::from_json(&sandbox.env))
        .bind(column::from_json(&sandbox.limits))
        .bind(sandbox.address.clone())
        .bind(sandbox.reason.clone())
        .bind(sandbox.driver.clone())
        .bind(column::from_time(sandbox.created_at))
}

pub(super) async fn insert(store: &SqliteStore, sandbox: &SandboxRecord) -> Result<()> {
    let statement = query(
        "INSERT INTO sandboxes (id, name, status, image, image_digest, env, limits, address,
         reason, driver, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (name) DO NOTHING",
    );
    let mut write = store.begin(|| format!("insert sandbox {}", sandbox.id)).await?;
    match write.execute(bind(statement, sandbox)).await {
        Ok(0) => return Err(name_in_use(sandbox)),
        Ok(_) => {}
        Err(error) => return Err(explained(error, sandbox)),
    }
    if let Some(slot) = sandbox.slot {
        slots::bind(&mut write, slot, &sandbox.id).await?;
    }
    write.commit().await
}

pub(super) async fn update(store: &SqliteStore, sandbox: &SandboxRecord) -> Result<()> {
    let statement = query(
        "UPDATE sandboxes SET name = ?2, status = ?3, image = ?4, image_digest = ?5, env = ?6,
         limits = ?7, address = ?8, reason = ?9, driver = ?10, created_at = ?11 WHERE id = ?1",
    );
    let mut write = store.begin(|| format!("update sandbox {}", sandbox.id)).await?;
    match write.execute(bind(statement, sandbox)).await {
        Ok(0) => return Err(MetadataError::SandboxMissing { id: sandbox.id }),
        Ok(_) => {}
        // The id is not changed, so it can only be the name.
        Err(error) if is_unique_violation(&error) => return Err(name_in_use(sandbox)),
        Err(error) => return Err(explained(error, sandbox)),
    }
    slots::unbind_others(&mut write, sandbox.slot, &sandbox.id).await?;
    if let Some(slot) = sandbox.slot {
        slots::bind(&mut write, slot, &sandbox.id).await?;
    }
    write.commit().await
}

fn name_in_use(sandbox: &SandboxRecord) -> MetadataError {
    MetadataError::NameInUse { what: "a sandbox", name: sandbox.name.clone().unwrap_or_default() }
}

fn explained(error: MetadataError, sandbox: &SandboxRecord) -> MetadataError {
    if is_foreign_key_violation(&error) {
        MetadataError::ImageMissing { digest: sandbox.image_digest }
    } else {
        error
    }
}

pub(super) async fn get(store: &SqliteStore, id: &SandboxId) -> Result<Option<SandboxRecord>> {
    let statement = query(select!("WHERE id = ?1")).bind(id.to_string());
    let row = store.row(statement, || format!("read sandbox {id}")).await?;
    row.as_ref().map(record).transpose()
}

pub(super) async fn find(store: &SqliteStore, name: &str) -> Result<Option<SandboxRecord>> {
    let statement = query(select!("WHERE name = ?1")).bind(name.to_owned());
    let row = store.row(statement, || format!("find sandbox {name}")).await?;
    row.as_ref().map(record).transpose()
}

pub(super) async fn list(
    store: &SqliteStore,
    cursor: Option<&SandboxId>,
    limit: u32,
) -> Result<Vec<SandboxRecord>> {
    let statement = query(select!("WHERE id < ?1 ORDER BY id DESC LIMIT ?2"))
        .bind(cursor.map_or_else(column::above_all_ids, SandboxId::to_string))
        .bind(limit);
    let rows = store.rows(statement, || "list sandboxes".to_owned()).await?;
    rows.iter().map(record).collect()
}

pub(super) async fn remove(store: &SqliteStore, id: &SandboxId) -> Result<bool> {
    let statement = query("DELETE FROM sandboxes WHERE id = ?1").bind(id.to_string());
    Ok(store.execute(statement, || format!("remove sandbox {id}")).await? > 0)
}
