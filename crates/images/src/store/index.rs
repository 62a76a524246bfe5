//! The index files: `<diffID>.erofs`, or `chain-<chainID>.erofs` for those that depend on what is below.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_layer::{Index, LayerError, LayerTree, write_index};
use kiln_types::{ChainId, DiffId, Digest};

use crate::ImagesError;

const TEMPORARY: &str = ".new-";

/// What an index is filed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum IndexKey {
    Layer(DiffId),
    Chain(ChainId),
}

impl IndexKey {
    /// The key of the index of the topmost of `layers`.
    pub(super) fn of(layers: &[DiffId], needs_parents: bool) -> Self {
        let top = layers.last().expect("a chain has at least the layer that is indexed");
        match needs_parents.then(|| ChainId::of(layers)).flatten() {
            Some(chain) => Self::Chain(chain),
            None => Self::Layer(*top),
        }
    }
}

impl IndexKey {
    /// What the file of this name is the index of.
    pub(super) fn of_file_name(name: &str) -> Option<Self> {
        let key = name.strip_suffix(".erofs")?;
        let digest = |hex| format!("sha256:{hex}").parse::<Digest>().ok();
        match key.strip_prefix("chain-") {
            Some(chain) => digest(chain).map(|chain| Self::Chain(ChainId(chain))),
            None => digest(key).map(|layer| Self::Layer(DiffId(layer))),
        }
    }
}

/// The directory of indexes.
#[derive(Debug)]
pub(super) struct IndexFiles {
    dir: PathBuf,
    proven: Mutex<HashMap<IndexKey, Proven>>,
}

/// An index that was opened and found sound, and the file that this is known of.
#[derive(Debug)]
struct Proven {
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    devices: Arc<[DiffId]>,
}

impl Proven {
    fn is(&self, metadata: &fs::Metadata) -> bool {
        (self.ino, self.size, self.mtime) == identity(metadata)
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64, (i64, i64)) {
    (metadata.ino(), metadata.size(), (metadata.mtime(), metadata.mtime_nsec()))
}

impl IndexFiles {
    /// Opens the directory, makes it if need be, and removes what a crash left unfinished.
    pub(super) fn open(dir: &Path) -> Result<Self, ImagesError> {
        let failed = |action| {
            move |source: io::Error| ImagesError::Io { action, path: dir.to_owned(), source }
        };
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make the directory")(error));
            }
            _ => {}
        }
        for entry in fs::read_dir(dir).map_err(failed("list"))? {
            let entry = entry.map_err(failed("list"))?;
            if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
                fs::remove_file(entry.path()).map_err(failed("clean up"))?;
            }
        }
        Ok(Self { dir: dir.to_owned(), proven: Mutex::default() })
    }

    pub(super) fn path(&self, key: &IndexKey) -> PathBuf {
        self.dir.join(match key {
            IndexKey::Layer(layer) => format!("{}.erofs", layer.hex()),
            IndexKey::Chain(chain) => format!("chain-{}.erofs", chain.hex()),
        })
    }

    /// The tars that a stored index names; `None` when it is not stored. An index is opened and checked
    /// once, and again whenever its file is another one.
    pub(super) fn devices(&self, key: &IndexKey) -> Result<Option<Arc<[DiffId]>>, LayerError> {
        let path = self.path(key);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LayerError::ReadIndex { path, source }),
        };
        if let Some(proven) = self.lock().get(key).filter(|proven| proven.is(&metadata)) {
            return Ok(Some(Arc::clone(&proven.devices)));
        }
        let devices: Arc<[DiffId]> = Index::open(&path)?.devices().into();
        let (ino, size, mtime) = identity(&metadata);
        let proven = Proven { ino, size, mtime, devices: Arc::clone(&devices) };
        self.lock().insert(*key, proven);
        Ok(Some(devices))
    }

    /// Opens the stored index of a layer below another one.
    pub(super) fn read(&self, key: &IndexKey) -> Result<Index, LayerError> {
        Index::open(self.path(key))
    }

    /// Writes an index, durable and whole or not at all.
    pub(super) fn write(
        &self,
        key: &IndexKey,
        tree: &LayerTree,
        layer: DiffId,
        tar_size: u64,
        parents: &[Index],
    ) -> Result<(), ImagesError> {
        let failed = |action| {
            move |source: io::Error| ImagesError::Io { action, path: self.dir.clone(), source }
        };
        let file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.dir)
            .map_err(failed("write an index in"))?;
        kiln_failpoint::reach("index.created").map_err(failed("write an index in"))?;
        let info = write_index(tree, layer, tar_size, parents, BufWriter::new(file.as_file()))
            .map_err(|source| ImagesError::Index { layer, source })?;
        for dropped in &info.dropped {
            tracing::warn!(%layer, path = dropped.path, reason = dropped.reason, "left out of a layer");
        }
        kiln_failpoint::reach("index.written").map_err(failed("write an index in"))?;
        file.as_file()
            .set_permissions(Permissions::from_mode(0o400))
            .and_then(|()| file.as_file().sync_all())
            .map_err(failed("sync an index in"))?;
        kiln_failpoint::reach("index.synced").map_err(failed("store an index in"))?;
        let path = self.path(key);
        file.persist(&path).map_err(|error| ImagesError::Io {
            action: "store the index",
            path,
            source: error.error,
        })?;
        kiln_failpoint::reach("index.named").map_err(failed("sync"))?;
        self.sync().map_err(failed("sync"))
    }

    /// The keys of all indexes.
    pub(super) fn list(&self) -> Result<Vec<IndexKey>, ImagesError> {
        let failed = |source| ImagesError::Io { action: "list", path: self.dir.clone(), source };
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            keys.extend(name.to_str().and_then(IndexKey::of_file_name));
        }
        Ok(keys)
    }

    /// Removes an index and says how many bytes it had.
    pub(super) fn remove(&self, key: &IndexKey) -> Result<u64, ImagesError> {
        let path = self.path(key);
        self.lock().remove(key);
        let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        kiln_failpoint::reach("index.remove").map_err(|source| ImagesError::Io {
            action: "remove the index",
            path: path.clone(),
            source,
        })?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ImagesError::Io { action: "remove the index", path, source })
            }
            _ => Ok(size),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IndexKey, Proven>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
