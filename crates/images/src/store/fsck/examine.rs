//! Single objects of the store, held against what they must be. Blocking, and callable one by one.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_content::{BlobStore, ContentError};
use kiln_layer::{Index, LayerTree, Limits, read_tar_tree, write_index};
use kiln_metadata::{ImageRecord, LayerRecord};
use kiln_types::api::FindingKind;
use kiln_types::{DiffId, Digest};

use crate::oci::{Manifest, OciConfig, image_config};
use crate::store::ImageStore;
use crate::store::index::{IndexFiles, IndexKey};

/// What is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of damage.
    pub kind: FindingKind,
    /// What is wrong.
    pub problem: String,
}

impl Fault {
    fn new(kind: FindingKind, problem: impl Into<String>) -> Self {
        Self { kind, problem: problem.into() }
    }
}

/// Examines objects of one store, and remembers which indexes were found sound.
#[derive(Debug)]
pub struct Examiner {
    blobs: Arc<dyn BlobStore>,
    indexes: Arc<IndexFiles>,
    limits: Limits,
    /// What indexes must be that are not so on the disk, for those that stand on them.
    remade: HashMap<IndexKey, Vec<u8>>,
}

impl ImageStore {
    /// What examines single objects of this store.
    pub fn examiner(&self) -> Examiner {
        Examiner {
            blobs: Arc::clone(&self.blobs),
            indexes: Arc::clone(&self.indexes),
            limits: self.limits.clone(),
            remade: HashMap::new(),
        }
    }
}

impl Examiner {
    /// Reads and hashes a blob, which must have `size` bytes.
    pub fn blob(
        &self,
        digest: &Digest,
        size: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Fault> {
        let damaged = |problem| Err(Fault::new(FindingKind::BlobDamaged, problem));
        match self.blobs.prove(digest, size) {
            // What is too long is found without reading all of it.
            Err(ContentError::WrongSize { found, .. }) => {
                return damaged(format!("it has {found} bytes, not {size}"));
            }
            Err(error) => return Err(of_content(&error)),
            Ok(()) => {}
        }
        match self.blobs.verify(digest, progress) {
            Ok(found) if found == size => Ok(()),
            Ok(found) => damaged(format!("it has {found} bytes, not {size}")),
            Err(ContentError::Corrupt { found, .. }) => {
                damaged(format!("its content has the digest {found}"))
            }
            Err(error) => Err(of_content(&error)),
        }
    }

    /// Holds the index of the topmost of `rows` (the layers of an image, base first) against what the
    /// tars give. The tars must have been found sound.
    pub fn index(&mut self, rows: &[LayerRecord]) -> Result<(), Fault> {
        let key = key_of(rows);
        let damaged = |problem| Fault::new(FindingKind::IndexDamaged, problem);
        let made = self.make(rows);
        let path = self.indexes.path(&key);
        let found = match std::fs::read(&path) {
            Ok(found) => found,
            Err(error) => {
                if let Ok(made) = made {
                    self.remade.insert(key, made);
                }
                let kind = match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        return Err(Fault::new(FindingKind::IndexMissing, "it is not there"));
                    }
                    _ => FindingKind::IndexDamaged,
                };
                return Err(Fault::new(kind, format!("it cannot be read: {error}")));
            }
        };
        let made = made.map_err(damaged)?;
        if made == found {
            return Ok(());
        }
        let problem = if found.len() == made.len() {
            let at = made.iter().zip(&found).position(|(made, found)| made != found);
            format!("byte {} is not what its tar gives", at.unwrap_or_default())
        } else {
            format!("it has {} bytes, and its tar gives {}", found.len(), made.len())
        };
        self.remade.insert(key, made);
        Err(damaged(problem))
    }

    fn make(&self, rows: &[LayerRecord]) -> Result<Vec<u8>, String> {
        let (row, below) = rows.split_last().expect("there is a layer to index");
        let tree = self.tree(row)?;
        if tree.needs_parents() != row.needs_parents {
            return Err(format!(
                "the row says needs_parents = {}, and the tar says otherwise",
                row.needs_parents
            ));
        }
        let parents: Vec<Index> = if row.needs_parents {
            (1..=below.len()).map(|count| self.parent(&below[..count])).collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        let mut made = Cursor::new(Vec::new());
        write_index(&tree, row.diff_id, row.size, &parents, &mut made)
            .map_err(|error| format!("no index can be made of its tar: {}", chain(&error)))?;
        Ok(made.into_inner())
    }

    fn tree(&self, row: &LayerRecord) -> Result<LayerTree, String> {
        let tar = self.blobs.open(&row.diff_id.0).map_err(|error| chain(&error))?;
        let (tree, _) = read_tar_tree(&tar, &self.limits)
            .map_err(|error| format!("its tar cannot be read: {}", chain(&error)))?;
        Ok(tree)
    }

    fn parent(&self, rows: &[LayerRecord]) -> Result<Index, String> {
        let key = key_of(rows);
        match self.remade.get(&key) {
            Some(bytes) => Index::from_bytes(bytes.clone(), self.indexes.path(&key)),
            None => self.indexes.read(&key),
        }
        .map_err(|error| format!("an index below it cannot be read: {}", chain(&error)))
    }

    /// Holds the documents of an image, which must have been found sound, and its rows against each
    /// other. `rows` are those of its layers that are there.
    pub fn image(&self, image: &ImageRecord, rows: &[LayerRecord]) -> Result<(), Fault> {
        let wrong = |problem| Err(Fault::new(FindingKind::ImageInconsistent, problem));
        let read = |digest: &Digest| self.blobs.read(digest).map_err(|error| of_content(&error));
        let manifest = match Manifest::parse(&read(&image.digest)?) {
            Ok(manifest) => manifest,
            Err(error) => return wrong(format!("its manifest is not usable: {}", chain(&error))),
        };
        let config = OciConfig::parse(&read(&image.config_digest)?)
            .and_then(|config| image_config(&config).map(|_| config));
        let config = match config {
            Ok(config) => config,
            Err(error) => return wrong(format!("its config is not usable: {}", chain(&error))),
        };
        let (digest, size) = (manifest.config.digest, manifest.config.size);
        if (digest, size) != (image.config_digest, image.config_size) {
            return wrong(format!(
                "its manifest names the config {digest} of {size} bytes, its row {} of {}",
                image.config_digest, image.config_size
            ));
        }
        if config.rootfs.diff_ids != image.layers {
            return wrong("its config names other layers than its rows".to_owned());
        }
        if manifest.layers.len() != image.layers.len() {
            return wrong(format!(
                "its manifest has {} layers, and its rows have {}",
                manifest.layers.len(),
                image.layers.len()
            ));
        }
        for (descriptor, layer) in manifest.layers.iter().zip(&image.layers) {
            let Some(row) = rows.iter().find(|row| row.diff_id == *layer) else {
                return wrong(format!("its layer {layer} has no row"));
            };
            // An uncompressed layer is the tar itself.
            if descriptor.digest == layer.0 && descriptor.size != row.size {
                return wrong(format!(
                    "its manifest says that layer {layer} has {} bytes, its row {}",
                    descriptor.size, row.size
                ));
            }
        }
        Ok(())
    }

    /// The file of the index of the topmost of `rows`.
    pub fn index_path(&self, rows: &[LayerRecord]) -> PathBuf {
        self.indexes.path(&key_of(rows))
    }
}

/// What the index of the topmost of `rows` is filed under.
pub(super) fn key_of(rows: &[LayerRecord]) -> IndexKey {
    let chain: Vec<DiffId> = rows.iter().map(|row| row.diff_id).collect();
    IndexKey::of(&chain, rows.last().is_some_and(|row| row.needs_parents))
}

fn of_content(error: &ContentError) -> Fault {
    match error {
        ContentError::NotFound { .. } => Fault::new(FindingKind::BlobMissing, "it is not there"),
        ContentError::Corrupt { found, .. } => {
            Fault::new(FindingKind::BlobDamaged, format!("its content has the digest {found}"))
        }
        error => Fault::new(FindingKind::BlobUnreadable, chain(error)),
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
