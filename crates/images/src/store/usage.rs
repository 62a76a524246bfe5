//! What takes how much room, and who shares it.

use std::collections::{HashMap, HashSet};

use kiln_types::api::{ImageUsage, SnapshotUsage};
use kiln_types::{ChainId, DiffId, Digest};

use super::ImageStore;
use super::fsck::{Listing, Rows};
use super::gc::{QUARANTINE, quarantined, sized};
use super::index::IndexKey;
use crate::ImagesError;
use crate::blocking::blocking;

/// What the files of the store take, in bytes on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreBytes {
    /// Files of images; shared ones once.
    pub images: u64,
    /// Layers that only the build cache has, with their indexes.
    pub build_cache: u64,
    /// Blobs and indexes that no row speaks of.
    pub unreferenced: u64,
    /// What a repair moved aside.
    pub quarantine: u64,
    /// The single images, newest first.
    pub of_images: Vec<ImageUsage>,
    /// The snapshots, newest first.
    pub of_snapshots: Vec<SnapshotUsage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum File {
    Blob(Digest),
    Index(IndexKey),
}

impl ImageStore {
    /// What the files of the store take.
    pub async fn usage(&self) -> Result<StoreBytes, ImagesError> {
        let _changes = self.changes.lock().await;
        let rows = Rows::load(self)
            .await
            .map_err(|source| ImagesError::Metadata { action: "list what takes room", source })?;
        let data_dir = self.data_dir.clone();
        let (blobs, indexes, aside) = blocking(move || {
            let Listing { blobs, indexes, .. } = Listing::read(&data_dir)?;
            Ok((sized(blobs), sized(indexes), quarantined(&data_dir.join(QUARANTINE))?))
        })
        .await?;
        let mut sizes: HashMap<File, u64> = HashMap::new();
        sizes.extend(blobs.into_iter().map(|(blob, bytes)| (File::Blob(blob), bytes)));
        sizes.extend(indexes.into_iter().map(|(key, bytes)| (File::Index(key), bytes)));
        let bytes_of = |file: &File| sizes.get(file).copied().unwrap_or(0);

        let mut usage = StoreBytes {
            quarantine: aside.iter().map(|(_, _, bytes)| bytes).sum(),
            ..StoreBytes::default()
        };
        let mut users: HashMap<File, usize> = HashMap::new();
        let mut files_of: HashMap<Digest, HashSet<File>> = HashMap::new();
        for image in &rows.images {
            let files = files(&image.layers, [image.digest, image.config_digest]);
            for file in &files {
                *users.entry(*file).or_default() += 1;
            }
            files_of.insert(image.digest, files);
        }
        for image in &rows.images {
            let files = &files_of[&image.digest];
            let total: u64 = files.iter().map(bytes_of).sum();
            let own = files.iter().filter(|file| users[file] == 1);
            let unique: u64 = own.map(bytes_of).sum();
            let names = rows.names.iter().filter(|(_, of)| *of == image.digest);
            usage.of_images.push(ImageUsage {
                digest: image.digest.to_string(),
                names: names.map(|(name, _)| name.to_string()).collect(),
                total,
                unique,
                shared: total - unique,
            });
        }
        for snapshot in &rows.snapshots {
            let image = snapshot.image.to_string();
            let of = usage.of_images.iter().find(|of| of.digest == image);
            usage.of_snapshots.push(SnapshotUsage {
                name: snapshot.name.clone(),
                total: of.map_or(0, |of| of.total),
                unique: of.map_or(0, |of| of.unique),
                image,
            });
        }
        usage.images = users.keys().map(bytes_of).sum();
        for (file, bytes) in sizes.iter().filter(|(file, _)| !users.contains_key(file)) {
            let layer = match file {
                File::Blob(blob) => Some(DiffId(*blob)),
                File::Index(IndexKey::Layer(layer)) => Some(*layer),
                File::Index(IndexKey::Chain(_)) => None,
            };
            if layer.is_some_and(|layer| rows.layers.contains_key(&layer)) {
                usage.build_cache += bytes;
            } else {
                usage.unreferenced += bytes;
            }
        }
        Ok(usage)
    }
}

/// All files of an image, of which some indexes may not be there.
fn files(layers: &[DiffId], documents: [Digest; 2]) -> HashSet<File> {
    let mut files = HashSet::from(documents.map(File::Blob));
    for count in 1..=layers.len() {
        let layer = layers[count - 1];
        files.extend([File::Blob(layer.0), File::Index(IndexKey::Layer(layer))]);
        files
            .extend(ChainId::of(&layers[..count]).map(|chain| File::Index(IndexKey::Chain(chain))));
    }
    files
}
