//! What nothing needs: found by marking from the roots, and removed, rows first and files after.
//!
//! Roots are names, snapshots, sandboxes in whatever state, layers that are held, and, unless all is to
//! go, what was made or used a short time ago. No image comes and no hold begins while it works.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use kiln_metadata::MetadataError;
use kiln_types::api::{GcItem, GcKind};
use kiln_types::{DiffId, Digest, StepKey};

use super::ImageStore;
use super::fsck::{Listing, Needed, Rows};
use super::index::IndexKey;
use crate::ImagesError;
use crate::blocking::blocking;

/// Where [`ImageStore`] moves aside what is damaged, below the data directory.
pub(super) const QUARANTINE: &str = "quarantine";

/// How much is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GcScope {
    /// What no row speaks of, and layers that no image has and no step made: what a crash leaves.
    Leftovers,
    /// Also images that nothing uses and results of steps, if they are older than this.
    Older(SignedDuration),
    /// The same, whatever their age.
    All,
}

/// What was removed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The single things.
    pub items: Vec<GcItem>,
    /// The files of indexes among them: whoever keeps mounts of them lets go of these.
    pub indexes: Vec<PathBuf>,
    /// Bytes on the disk of all of them.
    pub bytes: u64,
}

impl Collected {
    fn add(&mut self, kind: GcKind, subject: String, bytes: u64) {
        self.bytes += bytes;
        self.items.push(GcItem { kind, subject, bytes });
    }
}

/// What is to go, as the rows and files are.
#[derive(Debug, Default)]
struct Plan {
    images: Vec<Digest>,
    steps: Vec<StepKey>,
    layers: Vec<DiffId>,
    blobs: Vec<(Digest, u64)>,
    indexes: Vec<(IndexKey, u64)>,
    quarantined: Vec<(PathBuf, u64)>,
    /// What the blobs were of.
    kinds: HashMap<Digest, GcKind>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.images.is_empty()
            && self.steps.is_empty()
            && self.layers.is_empty()
            && self.blobs.is_empty()
            && self.indexes.is_empty()
            && self.quarantined.is_empty()
    }

    fn kind(&self, blob: &Digest) -> GcKind {
        self.kinds.get(blob).copied().unwrap_or(GcKind::Leftover)
    }
}

impl ImageStore {
    /// Says what would go.
    pub async fn gc_plan(&self, scope: GcScope) -> Result<Collected, ImagesError> {
        let _changes = self.changes.lock().await;
        let plan = self.plan(scope).await?;
        let mut collected = Collected::default();
        for image in &plan.images {
            collected.add(GcKind::Image, image.to_string(), 0);
        }
        for step in &plan.steps {
            collected.add(GcKind::Step, step.to_string(), 0);
        }
        for (key, bytes) in &plan.indexes {
            let path = self.indexes.path(key);
            collected.add(GcKind::Index, self.below(&path), *bytes);
            collected.indexes.push(path);
        }
        for (blob, bytes) in &plan.blobs {
            collected.add(plan.kind(blob), blob.to_string(), *bytes);
        }
        for (path, bytes) in &plan.quarantined {
            collected.add(GcKind::Quarantined, self.below(path), *bytes);
        }
        Ok(collected)
    }

    /// Removes what nothing needs.
    ///
    /// # Errors
    /// Nothing is removed when the database is damaged: then rows may be missing that need it.
    pub async fn gc(&self, scope: GcScope) -> Result<Collected, ImagesError> {
        let _changes = self.changes.lock().await;
        let mut collected = Collected::default();
        let mut plan = self.plan(scope).await?;
        if plan.is_empty() {
            return Ok(collected);
        }
        self.check_database().await?;
        let mut kinds = std::mem::take(&mut plan.kinds);
        while !plan.images.is_empty() {
            for image in &plan.images {
                match self.metadata.remove_image(image).await {
                    Ok(_) => {
                        kiln_failpoint::pass("gc.image-unrecorded");
                        collected.add(GcKind::Image, image.to_string(), 0);
                    }
                    // A sandbox or snapshot came to use it: the next plan knows.
                    Err(MetadataError::ImageInUse { .. }) => {}
                    Err(error) => return Err(update(error)),
                }
            }
            plan = self.plan(scope).await?;
        }
        kinds.extend(std::mem::take(&mut plan.kinds));
        plan.kinds = kinds;
        if !plan.steps.is_empty() {
            self.metadata.remove_steps(&plan.steps).await.map_err(update)?;
            kiln_failpoint::pass("gc.steps-unrecorded");
        }
        for step in &plan.steps {
            collected.add(GcKind::Step, step.to_string(), 0);
        }
        for layer in &plan.layers {
            self.metadata.remove_layer(layer).await.map_err(update)?;
            kiln_failpoint::pass("gc.layer-unrecorded");
        }
        for (key, bytes) in &plan.indexes {
            self.remove_index(*key).await?;
            let path = self.indexes.path(key);
            collected.add(GcKind::Index, self.below(&path), *bytes);
            collected.indexes.push(path);
            kiln_failpoint::pass("gc.index-removed");
        }
        for (blob, bytes) in &plan.blobs {
            self.remove_blob(*blob).await?;
            collected.add(plan.kind(blob), blob.to_string(), *bytes);
        }
        for (path, bytes) in &plan.quarantined {
            remove_aside(path.clone()).await?;
            collected.add(GcKind::Quarantined, self.below(path), *bytes);
        }
        Ok(collected)
    }

    /// What goes, as it is now; nothing may change meanwhile.
    async fn plan(&self, scope: GcScope) -> Result<Plan, ImagesError> {
        let rows = Rows::load(self).await.map_err(list)?;
        let data_dir = self.data_dir.clone();
        let (listing, aside) = blocking(move || {
            let aside = quarantined(&data_dir.join(QUARANTINE))?;
            Ok((Listing::read(&data_dir)?, aside))
        })
        .await?;
        let mut plan = Plan::default();
        let live_images = self.live_images(&rows, scope);
        let is_live = |image: &kiln_metadata::ImageRecord| live_images.contains(&image.digest);
        let (live, dead): (Vec<_>, Vec<_>) = rows.images.iter().partition(|image| is_live(image));
        plan.images = dead.iter().map(|image| image.digest).collect();
        for image in &dead {
            plan.kinds
                .extend([image.digest, image.config_digest].map(|blob| (blob, GcKind::Document)));
        }
        let mut live_layers: HashSet<DiffId> =
            live.iter().flat_map(|image| image.layers.iter().copied()).collect();
        for step in &rows.steps {
            let young = young(scope, step.used_at);
            let needed = |layer: &DiffId| live_layers.contains(layer) || self.holds.has(layer);
            if !young && !step.layer.as_ref().is_some_and(needed) {
                plan.steps.push(step.key);
            }
        }
        // Only now: a step does not keep the steps of others.
        let of_steps = rows.steps.iter().filter(|step| young(scope, step.used_at));
        live_layers.extend(of_steps.filter_map(|step| step.layer));
        for layer in rows.layers.keys() {
            if !live_layers.contains(layer) && !self.holds.has(layer) {
                plan.kinds.insert(layer.0, GcKind::Layer);
                plan.layers.push(*layer);
            }
        }
        plan.layers.sort();
        // A step whose layer goes goes with it, young or not; there is none, by the lines above.
        let mut needed = Needed::by(&rows);
        needed.layers.retain(|layer| live_layers.contains(layer));
        let live_rows = Rows { images: live.into_iter().cloned().collect(), ..Rows::default() };
        let of_live = Needed::by(&live_rows);
        needed.documents = of_live.documents;
        needed.chains = of_live.chains;
        let blobs = listing.blobs.into_iter();
        let blobs: Vec<_> = blobs.filter(|(blob, _)| !self.needs_blob(&needed, blob)).collect();
        let indexes = listing.indexes.into_iter();
        let indexes: Vec<_> = indexes.filter(|(key, _)| !self.needs_index(&needed, key)).collect();
        (plan.blobs, plan.indexes) = blocking(move || Ok((sized(blobs), sized(indexes)))).await?;
        let aside = aside.into_iter().filter(|(_, time, _)| !young(scope, Some(*time)));
        plan.quarantined = aside.map(|(path, _, bytes)| (path, bytes)).collect();
        Ok(plan)
    }

    fn live_images(&self, rows: &Rows, scope: GcScope) -> HashSet<Digest> {
        let mut live = rows.used_images();
        for (pin, used_at) in &rows.pins {
            if young(scope, used_at.or(Some(pin.resolved_at))) {
                live.insert(pin.image);
            }
        }
        for image in &rows.images {
            // Whoever makes a snapshot or a sandbox of it holds its layers until there is a row.
            let held = image.layers.last().is_some_and(|layer| self.holds.has(layer));
            if held || young(scope, Some(image.created_at)) {
                live.insert(image.digest);
            }
        }
        live
    }

    /// Refuses to go on when rows may be missing.
    pub(super) async fn check_database(&self) -> Result<(), ImagesError> {
        let verified = self.metadata.verify().await.map_err(list)?;
        match verified.damage.first() {
            None => Ok(()),
            Some(damage) => Err(ImagesError::DatabaseDamaged {
                damage: format!("{}: {}", damage.subject, damage.problem),
            }),
        }
    }

    fn below(&self, path: &Path) -> String {
        path.strip_prefix(&self.data_dir).unwrap_or(path).display().to_string()
    }

    /// Removes blobs and indexes that no row speaks of, and layers that no image has and no step made,
    /// unless they are held. Gives the bytes on the disk that were freed.
    pub async fn sweep(&self) -> Result<u64, ImagesError> {
        let collected = self.gc(GcScope::Leftovers).await?;
        for item in &collected.items {
            tracing::info!(kind = ?item.kind, subject = item.subject, "removed what a crash left");
        }
        Ok(collected.bytes)
    }
}

/// Whether something of this time is kept for its age alone.
fn young(scope: GcScope, time: Option<Timestamp>) -> bool {
    match (scope, time) {
        (GcScope::Leftovers, _) => true,
        (GcScope::All, _) | (GcScope::Older(_), None) => false,
        (GcScope::Older(age), Some(time)) => Timestamp::now().duration_since(time) < age,
    }
}

/// What lies in quarantine, since when, with its bytes on the disk.
pub(super) fn quarantined(dir: &Path) -> Result<Vec<(PathBuf, Timestamp, u64)>, ImagesError> {
    let failed = |source| ImagesError::Io { action: "list", path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let time = std::fs::symlink_metadata(&path).and_then(|found| found.modified());
        // When it was moved aside; its own times may be old.
        let aside = name_time(&path);
        let time = time.ok().and_then(|time| Timestamp::try_from(time).ok());
        let time = aside.or(time).unwrap_or(Timestamp::UNIX_EPOCH);
        found.push((path.clone(), time, tree_bytes(&path)));
    }
    found.sort();
    Ok(found)
}

/// The time in a quarantined file's name.
fn name_time(path: &Path) -> Option<Timestamp> {
    let (millis, _) = path.file_name()?.to_str()?.split_once('-')?;
    Timestamp::from_millisecond(millis.parse().ok()?).ok()
}

/// Bytes on the disk of a file, or of a directory with all that is in it.
pub(super) fn tree_bytes(path: &Path) -> u64 {
    let own = super::fsck::allocated(path);
    let is_dir = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let entries = if is_dir { std::fs::read_dir(path).ok() } else { None };
    let below = entries.into_iter().flatten().flatten().map(|entry| tree_bytes(&entry.path()));
    own + below.sum::<u64>()
}

/// Files with the bytes that they take on the disk.
pub(super) fn sized<K>(files: Vec<(K, PathBuf)>) -> Vec<(K, u64)> {
    files.into_iter().map(|(key, path)| (key, super::fsck::allocated(&path))).collect()
}

/// Removes a quarantined file or directory.
pub(super) async fn remove_aside(path: PathBuf) -> Result<(), ImagesError> {
    blocking(move || {
        let is_dir = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        kiln_failpoint::reach("aside.remove").map_err(|source| ImagesError::Io {
            action: "remove",
            path: path.clone(),
            source,
        })?;
        let removed =
            if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(|source| ImagesError::Io { action: "remove", path, source })
    })
    .await
}

fn list(source: MetadataError) -> ImagesError {
    ImagesError::Metadata { action: "list what is needed", source }
}

fn update(source: MetadataError) -> ImagesError {
    ImagesError::Metadata { action: "remove rows that nothing needs", source }
}
