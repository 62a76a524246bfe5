//! Table `slots`. A sandbox's slot goes with its row, by the foreign key.

use kiln_types::SandboxId;
use sqlx::query;

use super::{Result, SqliteStore, Write, column};
use crate::MetadataError;

/// Makes a slot that is free or reserved a sandbox's.
pub(super) async fn bind(write: &mut Write, slot: u32, sandbox: &SandboxId) -> Result<()> {
    let statement = query(
        "INSERT INTO slots (slot, sandbox) VALUES (?1, ?2) ON CONFLICT (slot)
         DO UPDATE SET sandbox = ?2 WHERE sandbox IS NULL OR sandbox = ?2",
    )
    .bind(slot)
    .bind(sandbox.to_string());
    match write.execute(statement).await? {
        0 => Err(MetadataError::SlotInUse { slot }),
        _ => Ok(()),
    }
}

/// Frees what a sandbox has besides `keep`.
pub(super) async fn unbind_others(
    write: &mut Write,
    keep: Option<u32>,
    sandbox: &SandboxId,
) -> Result<()> {
    let statement = query("DELETE FROM slots WHERE sandbox = ?1 AND slot IS NOT ?2")
        .bind(sandbox.to_string())
        .bind(keep);
    write.execute(statement).await?;
    Ok(())
}

pub(super) async fn reserve(store: &SqliteStore, count: u32) -> Result<u32> {
    let statement = query(
        "INSERT INTO slots (slot)
         SELECT MIN(free) FROM (SELECT 0 AS free UNION ALL SELECT slot + 1 FROM slots)
         WHERE free NOT IN (SELECT slot FROM slots) HAVING MIN(free) < ?1
         RETURNING slot",
    )
    .bind(count);
    let mut write = store.begin_relaxed(|| "reserve a slot".to_owned()).await?;
    let row = write.row(statement).await?.ok_or(MetadataError::NoSlot { count })?;
    let slot = column::number(&row, "slots.slot")?;
    write.commit().await?;
    Ok(slot)
}

pub(super) async fn release(store: &SqliteStore, slot: u32) -> Result<()> {
    let statement = query("DELETE FROM slots WHERE slot = ?1 AND sandbox IS NULL").bind(slot);
    let mut write = store.begin_relaxed(|| format!("release slot {slot}")).await?;
    write.execute(statement).await?;
    write.commit().await
}

pub(super) async fn release_unused(store: &SqliteStore) -> Result<u32> {
    let statement = query("DELETE FROM slots WHERE sandbox IS NULL");
    Ok(store.execute(statement, || "release unused slots".to_owned()).await? as u32)
}
