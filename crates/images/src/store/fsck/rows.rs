//! The database: what SQLite says of it, what its checksums say, and what its rows refer to.

use std::collections::{BTreeSet, HashSet};

use kiln_metadata::{Damage, DamageKind, MetadataError};
use kiln_types::api::{Affected, FindingKind, WayOut};
use kiln_types::{DiffId, Digest};

use super::examine::chain;
use super::{Fault, Rows, Run};

/// Tables whose rows are there to save work, or to remember what was: nothing is lost with one.
pub(in crate::store) const DISPENSABLE: [&str; 6] =
    ["base_pins", "blob_diff_ids", "builds", "image_sources", "layer_sources", "steps"];

impl Run {
    /// Verifies the database and reads the rows.
    pub(super) async fn database(&mut self) -> Result<Rows, MetadataError> {
        let verified = self.store.metadata.verify().await?;
        self.examined.checked.rows = verified.rows;
        let rows = match Rows::load(&self.store).await {
            Ok(rows) => rows,
            Err(error) => {
                self.damage(&Rows::default(), verified.damage);
                return Err(error);
            }
        };
        let mut dangling = dangling(&rows);
        if !dangling.is_empty() {
            // Rows were read one table after the other: what changed in between seems to dangle once.
            let again = self::dangling(&Rows::load(&self.store).await?);
            dangling.retain(|found| again.contains(found));
        }
        for (subject, problem, way_out, affects) in dangling {
            let fault = Fault { kind: FindingKind::ReferenceDangling, problem };
            self.find(fault, subject, None, affects, way_out);
        }
        self.damage(&rows, verified.damage);
        Ok(rows)
    }

    pub(super) fn unreadable_rows(&mut self, error: &MetadataError) {
        let problem =
            format!("rows cannot be read, so only blobs were looked at: {}", chain(error));
        let fault = Fault { kind: FindingKind::DatabaseDamaged, problem };
        self.find(fault, "database".to_owned(), None, Affected::default(), WayOut::Lost);
    }

    fn damage(&mut self, rows: &Rows, damage: Vec<Damage>) {
        for damage in damage {
            let Damage { kind, subject, problem } = damage;
            let (table, key) = subject.split_once(' ').unwrap_or((&subject, ""));
            let kind = match kind {
                DamageKind::File => FindingKind::DatabaseDamaged,
                DamageKind::Row => FindingKind::RowDamaged,
                // Said already, and better.
                DamageKind::Reference if self.found(FindingKind::ReferenceDangling) => continue,
                DamageKind::Reference => FindingKind::ReferenceDangling,
            };
            let way_out = match kind {
                FindingKind::RowDamaged if DISPENSABLE.contains(&table) => WayOut::Repair,
                _ => WayOut::Lost,
            };
            let affects = affected(rows, table, key);
            self.find(Fault { kind, problem }, subject.clone(), None, affects, way_out);
        }
    }
}

/// Subject, problem, way out, what depends on it.
type Dangling = (String, String, WayOut, Affected);

/// Rows that name what has no row.
fn dangling(rows: &Rows) -> Vec<Dangling> {
    let images: HashSet<Digest> = rows.images.iter().map(|image| image.digest).collect();
    let mut found: Vec<Dangling> = Vec::new();
    let missing = |image: &Digest| format!("it names image {image}, which has no row");
    for image in &rows.images {
        for layer in image.layers.iter().filter(|layer| !rows.layers.contains_key(layer)) {
            let problem = format!("it names layer {layer}, which has no row");
            let affects = rows.affected(&BTreeSet::from([image.digest]));
            found.push((format!("images {}", image.digest), problem, WayOut::Lost, affects));
        }
    }
    for (name, image) in rows.names.iter().filter(|(_, image)| !images.contains(image)) {
        let affects = Affected { names: vec![name.to_string()], ..Affected::default() };
        found.push((format!("image_names {name}"), missing(image), WayOut::Lost, affects));
    }
    for row in &rows.snapshots {
        let subject = format!("snapshots {}", row.id);
        let affects = Affected { snapshots: vec![row.name.clone()], ..Affected::default() };
        if !images.contains(&row.image) {
            found.push((subject, missing(&row.image), WayOut::Lost, affects));
        } else if !rows.names.iter().any(|(name, image)| {
            *image == row.image
                && row.name.parse().is_ok_and(|own: kiln_types::ImageName| own == *name)
        }) {
            let problem = "its name is no name of its image".to_owned();
            found.push((subject, problem, WayOut::Lost, affects));
        }
    }
    for row in rows.sandboxes.iter().filter(|row| !images.contains(&row.image_digest)) {
        let affects = Affected { sandboxes: vec![row.id.to_string()], ..Affected::default() };
        let subject = format!("sandboxes {}", row.id);
        found.push((subject, missing(&row.image_digest), WayOut::Lost, affects));
    }
    for (pin, _) in rows.pins.iter().filter(|(pin, _)| !images.contains(&pin.image)) {
        let subject = format!("base_pins {}", pin.base);
        found.push((subject, missing(&pin.image), WayOut::Repair, Affected::default()));
    }
    let dangles = |layer: &DiffId| !rows.layers.contains_key(layer);
    for step in rows.steps.iter().filter(|step| step.layer.as_ref().is_some_and(dangles)) {
        let problem = "it names a layer that has no row".to_owned();
        let subject = format!("steps {}", step.key);
        found.push((subject, problem, WayOut::Repair, Affected::default()));
    }
    found
}

/// What depends on a row.
fn affected(rows: &Rows, table: &str, key: &str) -> Affected {
    let image = |text: &str| -> BTreeSet<Digest> { text.parse().into_iter().collect() };
    match table {
        "layers" => match key.parse::<Digest>() {
            Ok(layer) => rows.affected(&rows.images_with(&DiffId(layer))),
            Err(_) => Affected::default(),
        },
        "images" => rows.affected(&image(key)),
        "image_layers" => {
            let key: Vec<serde_json::Value> = serde_json::from_str(key).unwrap_or_default();
            rows.affected(&image(key.first().and_then(|key| key.as_str()).unwrap_or_default()))
        }
        "image_names" => Affected { names: vec![key.to_owned()], ..Affected::default() },
        "sandboxes" => Affected { sandboxes: vec![key.to_owned()], ..Affected::default() },
        "snapshots" => {
            let of = rows.snapshots.iter().filter(|row| row.id.to_string() == key);
            Affected { snapshots: of.map(|row| row.name.clone()).collect(), ..Affected::default() }
        }
        _ => Affected::default(),
    }
}
