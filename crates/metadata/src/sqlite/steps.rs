//! Tables `steps` and `base_pins`.

use jiff::Timestamp;
use kiln_types::{DiffId, Digest, StepKey};
use sqlx::query;

use super::{Result, SqliteStore, column, is_foreign_key_violation};
use crate::{BasePin, MetadataError, StepRecord};

pub(super) async fn put(store: &SqliteStore, step: &StepRecord) -> Result<()> {
    let statement = query(
        "INSERT INTO steps (key, layer, used_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (key) DO UPDATE SET layer = excluded.layer, used_at = excluded.used_at",
    )
    .bind(step.key.to_string())
    .bind(step.layer.map(|layer| layer.to_string()))
    .bind(column::from_time(Timestamp::now()));
    match (store.execute(statement, || format!("store step {}", step.key)).await, step.layer) {
        (Ok(_), _) => Ok(()),
        (Err(error), Some(diff_id)) if is_foreign_key_violation(&error) => {
            Err(MetadataError::LayerMissing { diff_id })
        }
        (Err(error), _) => Err(error),
    }
}

pub(super) async fn get(store: &SqliteStore, key: &StepKey) -> Result<Option<StepRecord>> {
    let statement = query("SELECT key, layer FROM steps WHERE key = ?1").bind(key.to_string());
    let row = store.row(statement, || format!("read step {key}")).await?;
    row.map(|row| {
        Ok(StepRecord {
            key: column::parsed::<Digest>(&row, "steps.key")?.into(),
            layer: column::parsed_option(&row, "steps.layer")?,
        })
    })
    .transpose()
}

pub(super) async fn remove_of_layer(store: &SqliteStore, layer: &DiffId) -> Result<u64> {
    let statement = query("DELETE FROM steps WHERE layer = ?1").bind(layer.to_string());
    store.execute(statement, || format!("remove the steps of layer {layer}")).await
}

pub(super) async fn put_base_pin(store: &SqliteStore, pin: &BasePin) -> Result<()> {
    let statement = query(
        "INSERT INTO base_pins (base, image, source, resolved_at, used_at)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (base) DO UPDATE SET image = excluded.image, source = excluded.source,
         resolved_at = excluded.resolved_at, used_at = excluded.used_at",
    )
    .bind(pin.base.clone())
    .bind(pin.image.to_string())
    .bind(pin.source.clone())
    .bind(column::from_time(pin.resolved_at))
    .bind(column::from_time(Timestamp::now()));
    match store.execute(statement, || format!("pin base {}", pin.base)).await {
        Ok(_) => Ok(()),
        Err(error) if is_foreign_key_violation(&error) => {
            Err(MetadataError::ImageMissing { digest: pin.image })
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn get_base_pin(store: &SqliteStore, base: &str) -> Result<Option<BasePin>> {
    let statement = query("SELECT base, image, source, resolved_at FROM base_pins WHERE base = ?1")
        .bind(base.to_owned());
    let row = store.row(statement, || format!("read the pin of base {base}")).await?;
    row.map(|row| {
        Ok(BasePin {
            base: column::plain(&row, "base_pins.base")?,
            image: column::parsed(&row, "base_pins.image")?,
            source: column::plain(&row, "base_pins.source")?,
            resolved_at: column::parsed(&row, "base_pins.resolved_at")?,
        })
    })
    .transpose()
}
