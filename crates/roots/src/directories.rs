//! Layers as plain directories, for kernels whose EROFS cannot mount an index with its tars.
//!
//! A layer is laid out once, from its validated index and its tars, and then mounted as often as it is
//! needed. What an index refuses is never begun; see `docs/formats/layer.md` for what an index says.

mod browse;
mod extract;
mod files;
mod store;
mod verify;

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_layer::Index;
use kiln_types::Digest;

use crate::{LayerDamage, LayerMounts, LayerSource, RootsError, overlay, sys};
use files::Files;
pub(crate) use store::Store;

/// How many layers are kept open. Each costs one descriptor.
const KEPT: usize = 512;

/// Mounts layers from directories below one directory, which nobody but its owner can look into.
#[derive(Debug)]
pub struct DirectoryMounts {
    store: Store,
    kept: Mutex<Kept>,
    /// One lock for each layer that is being laid out or removed, by the stem of its index.
    busy: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct Kept {
    trees: HashMap<PathBuf, KeptTree>,
    clock: u64,
}

#[derive(Debug)]
struct KeptTree {
    tree: Arc<OwnedFd>,
    devices: Vec<PathBuf>,
    identity: FileIdentity,
    used: u64,
}

/// Device, inode, length and time of an index: another file at the same path is another layer.
type FileIdentity = (u64, u64, u64, (i64, i64));

impl DirectoryMounts {
    /// The layers in `dir`, which is made if need be. Removes what an earlier process left half-made
    /// or half-removed, so only one process may have the directory open.
    pub fn open(dir: &Path) -> Result<Self, RootsError> {
        let store = Store::open(dir)?;
        Ok(Self { store, kept: Mutex::default(), busy: Mutex::default() })
    }

    /// The directory of the layer, laid out if it is not there.
    fn tree(&self, layer: &LayerSource) -> Result<Arc<OwnedFd>, RootsError> {
        let identity = identity(&layer.index)?;
        {
            let mut kept = self.kept();
            kept.clock += 1;
            let now = kept.clock;
            if let Some(found) = kept.trees.get_mut(&layer.index)
                && found.identity == identity
                && found.devices == layer.devices
            {
                found.used = now;
                return Ok(Arc::clone(&found.tree));
            }
        }
        let stem = Store::stem(&layer.index)?;
        self.alone(&stem, || {
            let (index, content) = read_index(&layer.index)?;
            let name = Store::name(&stem, &content);
            let tree = match self.store.find(&name)? {
                Some(tree) => tree,
                None => {
                    let files = Files::open(&index, layer)?;
                    self.store.make(&name, |tree| extract::extract(&index, &files, tree))?
                }
            };
            let tree = Arc::new(tree);
            let mut kept = self.kept();
            let used = kept.clock;
            kept.trees.insert(
                layer.index.clone(),
                KeptTree {
                    tree: Arc::clone(&tree),
                    devices: layer.devices.clone(),
                    identity,
                    used,
                },
            );
            if kept.trees.len() > KEPT
                && let Some(oldest) = kept
                    .trees
                    .iter()
                    .min_by_key(|(_, kept)| kept.used)
                    .map(|(index, _)| index.clone())
            {
                kept.trees.remove(&oldest);
            }
            Ok(tree)
        })
    }

    /// Runs `work` while nobody else works on the layer.
    fn alone<T>(&self, stem: &str, work: impl FnOnce() -> T) -> T {
        let lock = Arc::clone(self.busy().entry(stem.to_owned()).or_default());
        let result = {
            // What a panic left half-made is a draft, which has no meaning to anybody.
            let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        };
        let mut busy = self.busy();
        // The map's and this one: nobody else waits for it.
        if Arc::strong_count(&lock) == 2 {
            busy.remove(stem);
        }
        result
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Every change of the map is one call, so a panic elsewhere leaves it whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Mutex<()>>>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LayerMounts for DirectoryMounts {
    fn mode(&self) -> &'static str {
        "directory"
    }

    fn mount(&self, layer: &LayerSource) -> Result<OwnedFd, RootsError> {
        let tree = self.tree(layer)?;
        let mount = overlay::clone_directory(tree.as_fd(), "", "a layer")?;
        sys::restrict(mount.as_fd()).map_err(|source| RootsError::Layer {
            index: layer.index.clone(),
            step: "mount_setattr",
            kernel: String::new(),
            source,
        })?;
        Ok(mount)
    }

    fn prepare(&self, layer: &LayerSource) -> Result<(), RootsError> {
        self.tree(layer).map(drop)
    }

    fn forget(&self, index: &Path) -> Result<(), RootsError> {
        let stem = Store::stem(index)?;
        self.alone(&stem, || {
            self.kept().trees.remove(index);
            self.store.remove_all_of(&stem).map(drop)
        })
    }

    fn sweep(&self, known: &[PathBuf], used: &[PathBuf]) -> Result<u64, RootsError> {
        let keep = Store::stems(known.iter().chain(used))?;
        self.store.retain(|stem| keep.contains(stem))
    }

    fn verify(&self, layer: &LayerSource) -> Result<Vec<LayerDamage>, RootsError> {
        let stem = Store::stem(&layer.index)?;
        self.alone(&stem, || {
            let (index, content) = read_index(&layer.index)?;
            match self.store.find(&Store::name(&stem, &content))? {
                Some(tree) => verify::verify(&index, &Files::open(&index, layer)?, &tree),
                None => Ok(Vec::new()),
            }
        })
    }

    fn bytes(&self, index: &Path) -> Result<u64, RootsError> {
        self.store.bytes_of(&Store::stem(index)?)
    }
}

fn identity(index: &Path) -> Result<FileIdentity, RootsError> {
    let found = fs::metadata(index).map_err(|source| RootsError::Io {
        action: "look at the layer index",
        path: index.to_owned(),
        source,
    })?;
    Ok((found.dev(), found.ino(), found.len(), (found.mtime(), found.mtime_nsec())))
}

/// An index that was checked as a whole, and the digest of its bytes.
fn read_index(path: &Path) -> Result<(Index, Digest), RootsError> {
    let bytes = fs::read(path).map_err(|source| RootsError::Io {
        action: "read the layer index",
        path: path.to_owned(),
        source,
    })?;
    let content = Digest::of(&bytes);
    let refused = |source| RootsError::Index { index: path.to_owned(), source: Box::new(source) };
    let index = Index::from_bytes(bytes, path).map_err(refused)?;
    index.check().map_err(refused)?;
    Ok((index, content))
}
