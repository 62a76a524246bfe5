//! Table `image_names`.

use kiln_types::{Digest, ImageName};
use sqlx::query;

use super::{Result, SqliteStore, Write, column, is_foreign_key_violation};
use crate::{MetadataError, TemplateDefaults};

/// Points `name` at `image`, unless the name is a snapshot's of another image.
pub(super) async fn point(
    write: &mut Write,
    name: &ImageName,
    image: &Digest,
    defaults: TemplateDefaults,
) -> Result<()> {
    let statement = query(
        "INSERT INTO image_names (name, image, default_vcpu, default_memory_mib)
         SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS
         (SELECT 1 FROM snapshots WHERE image_name = ?1 AND image <> ?2)
         ON CONFLICT (name) DO UPDATE SET image = ?2, default_vcpu = ?3, default_memory_mib = ?4",
    )
    .bind(name.to_string())
    .bind(image.to_string())
    .bind(defaults.vcpu)
    .bind(defaults.memory_mib);
    match write.execute(statement).await {
        Ok(0) => Err(MetadataError::NameInUse { what: "a snapshot", name: name.to_string() }),
        Ok(_) => Ok(()),
        Err(error) if is_foreign_key_violation(&error) => {
            Err(MetadataError::ImageMissing { digest: *image })
        }
        Err(error) => Err(error),
    }
}

/// Points `name` at `image` with the image's own defaults, unless it points at another.
pub(super) async fn claim(write: &mut Write, name: &ImageName, image: &Digest) -> Result<()> {
    let statement = query(
        "INSERT INTO image_names (name, image, default_vcpu, default_memory_mib)
         SELECT ?1, digest, default_vcpu, default_memory_mib FROM images WHERE digest = ?2
         ON CONFLICT (name) DO UPDATE SET image = ?2 WHERE image = ?2",
    )
    .bind(name.to_string())
    .bind(image.to_string());
    match write.execute(statement).await? {
        0 => Err(MetadataError::NameInUse { what: "an image", name: name.to_string() }),
        _ => Ok(()),
    }
}

pub(super) async fn put(
    store: &SqliteStore,
    name: &ImageName,
    image: &Digest,
    defaults: TemplateDefaults,
) -> Result<()> {
    let mut write = store.begin(|| format!("name image {image} {name}")).await?;
    point(&mut write, name, image, defaults).await?;
    write.commit().await
}

pub(super) async fn resolve(
    store: &SqliteStore,
    name: &ImageName,
) -> Result<Option<(Digest, TemplateDefaults)>> {
    let statement =
        query("SELECT image, default_vcpu, default_memory_mib FROM image_names WHERE name = ?1")
            .bind(name.to_string());
    let Some(row) = store.row(statement, || format!("resolve name {name}")).await? else {
        return Ok(None);
    };
    let defaults = TemplateDefaults {
        vcpu: column::number_option(&row, "image_names.default_vcpu")?,
        memory_mib: column::number_option(&row, "image_names.default_memory_mib")?,
    };
    Ok(Some((column::parsed(&row, "image_names.image")?, defaults)))
}

pub(super) async fn remove(store: &SqliteStore, name: &ImageName) -> Result<bool> {
    let statement = query("DELETE FROM image_names WHERE name = ?1").bind(name.to_string());
    Ok(store.execute(statement, || format!("remove name {name}")).await? > 0)
}

pub(super) async fn of_image(store: &SqliteStore, image: &Digest) -> Result<Vec<ImageName>> {
    let statement = query("SELECT name FROM image_names WHERE image = ?1").bind(image.to_string());
    let rows = store.rows(statement, || format!("read the names of image {image}")).await?;
    let mut names: Vec<ImageName> =
        rows.iter().map(|row| column::parsed(row, "image_names.name")).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}
