//! Files: which of them nothing needs, and which are not Kiln's.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_types::api::{Affected, FindingKind, WayOut};
use kiln_types::{ChainId, DiffId, Digest};

use super::{Fault, Rows, Run, read_rows};
use crate::ImagesError;
use crate::blocking::blocking;
use crate::store::ImageStore;
use crate::store::index::IndexKey;

/// A temporary file, or a directory of such, that nobody writes any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes on the disk of the files in it.
    pub bytes: u64,
}

/// What processes that died left below `data_dir` while they wrote blobs and indexes. The next
/// [`ImageStore::open`] removes it. Blocking.
pub fn leftovers(data_dir: &Path) -> io::Result<Vec<Leftover>> {
    let mut found = stale_sessions(&data_dir.join("blobs/tmp"))?;
    for entry in entries(&data_dir.join("indexes"))? {
        if entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".new-")) {
            found.push(Leftover { bytes: allocated(&entry), path: entry });
        }
    }
    Ok(found)
}

/// Sessions of writers whose lock nobody has.
pub(super) fn stale_sessions(dir: &Path) -> io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for path in entries(dir)? {
        let session = match File::open(&path) {
            Ok(session) => session,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match session.try_lock_shared() {
            Ok(()) => {
                let files = entries(&path).unwrap_or_default();
                let bytes = files.iter().map(|file| allocated(file)).sum();
                found.push(Leftover { path, bytes });
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(found)
}

/// What is in a directory, sorted; nothing if there is none.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            let mut paths: Vec<PathBuf> =
                entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
            paths.sort();
            Ok(paths)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Bytes that a file takes on the disk.
pub(in crate::store) fn allocated(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |found| found.blocks() * 512)
}

/// What lies in the directories of the store. It is listed without a look at the files themselves, of
/// which there may be very many.
#[derive(Debug, Default)]
pub(in crate::store) struct Listing {
    /// Blobs and their files.
    pub(in crate::store) blobs: Vec<(Digest, PathBuf)>,
    /// Indexes likewise.
    pub(in crate::store) indexes: Vec<(IndexKey, PathBuf)>,
    /// Files that are none of Kiln's.
    pub(in crate::store) foreign: Vec<PathBuf>,
}

impl Listing {
    /// Blocking.
    pub(in crate::store) fn read(data_dir: &Path) -> Result<Self, ImagesError> {
        let mut listing = Self::default();
        let blobs = data_dir.join("blobs");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ImagesError::Io { action: "list", path, source }
        };
        for path in entries(&blobs).map_err(failed(&blobs))? {
            if !matches!(name(&path), Some("sha256" | "tmp")) {
                listing.foreign.push(path);
            }
        }
        let sha256 = blobs.join("sha256");
        for shard in entries(&sha256).map_err(failed(&sha256))? {
            let of_shard = name(&shard).filter(|name| name.len() == 2).map(str::to_owned);
            let (Some(prefix), true) = (of_shard, shard.is_dir()) else {
                listing.foreign.push(shard);
                continue;
            };
            for (path, is_file) in typed_entries(&shard).map_err(failed(&shard))? {
                let digest = name(&path)
                    .filter(|name| name.starts_with(&prefix))
                    .and_then(|name| format!("sha256:{name}").parse().ok());
                match (digest, is_file) {
                    (Some(digest), true) => listing.blobs.push((digest, path)),
                    _ => listing.foreign.push(path),
                }
            }
        }
        let indexes = data_dir.join("indexes");
        for (path, is_file) in typed_entries(&indexes).map_err(failed(&indexes))? {
            let key = name(&path).and_then(IndexKey::of_file_name);
            match (key, is_file) {
                (Some(key), true) => listing.indexes.push((key, path)),
                // Being written.
                _ if name(&path).is_some_and(|name| name.starts_with(".new-")) => {}
                _ => listing.foreign.push(path),
            }
        }
        Ok(listing)
    }
}

fn name(path: &Path) -> Option<&str> {
    path.file_name().and_then(OsStr::to_str)
}

/// What is in a directory, by name, and whether each is a regular file; nothing if there is none.
fn typed_entries(dir: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) => found.push((entry.file_name(), kind.is_file())),
            // It is gone by now. Most file systems tell the type with the name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(name, is_file)| (dir.join(name), is_file)).collect())
}

/// What of the files the rows speak of.
#[derive(Debug, Default)]
pub(in crate::store) struct Needed {
    pub(in crate::store) documents: HashSet<Digest>,
    pub(in crate::store) layers: HashSet<DiffId>,
    pub(in crate::store) chains: HashSet<ChainId>,
}

impl Needed {
    /// What all rows need.
    pub(in crate::store) fn by(rows: &Rows) -> Self {
        let mut needed = Self::default();
        for image in &rows.images {
            needed.documents.extend([image.digest, image.config_digest]);
            let prefixes = (1..=image.layers.len()).map(|count| &image.layers[..count]);
            needed.chains.extend(prefixes.filter_map(ChainId::of));
        }
        needed.layers = rows.layers.keys().copied().collect();
        needed
    }
}

impl ImageStore {
    /// Whether a blob is needed by rows or held.
    pub(in crate::store) fn needs_blob(&self, needed: &Needed, blob: &Digest) -> bool {
        let layer = DiffId(*blob);
        needed.documents.contains(blob) || needed.layers.contains(&layer) || self.holds.has(&layer)
    }

    /// The same of an index.
    pub(in crate::store) fn needs_index(&self, needed: &Needed, key: &IndexKey) -> bool {
        match key {
            IndexKey::Layer(layer) => needed.layers.contains(layer) || self.holds.has(layer),
            IndexKey::Chain(chain) => {
                // Who holds a layer may be about to mount it with an index that no image needs yet.
                needed.chains.contains(chain)
                    || self.indexes.devices(key).ok().flatten().is_some_and(|devices| {
                        devices.first().is_some_and(|layer| self.holds.has(layer))
                    })
            }
        }
    }

    /// A path as people are told it.
    pub(super) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.data_dir).unwrap_or(path).display().to_string()
    }
}

impl Run {
    /// Looks for files that nothing needs.
    pub(super) async fn files(&mut self) -> Result<(), ImagesError> {
        let store = Arc::clone(&self.store);
        let _changes = store.changes.lock().await;
        let rows = Rows::load(&store).await.map_err(read_rows)?;
        let needed = Needed::by(&rows);
        let data_dir = store.data_dir.clone();
        let (listing, stale) = blocking(move || {
            let tmp = data_dir.join("blobs/tmp");
            let stale = stale_sessions(&tmp).map_err(|source| ImagesError::Io {
                action: "list",
                path: tmp,
                source,
            })?;
            Ok((Listing::read(&data_dir)?, stale))
        })
        .await?;
        let listed = listing.blobs.len() + listing.indexes.len() + listing.foreign.len();
        self.examined.checked.files += listed as u64;
        let unneeded = |kind, problem: &str| Fault { kind, problem: problem.to_owned() };
        let nobody = Affected::default;
        for (blob, _) in listing.blobs {
            if !store.needs_blob(&needed, &blob) {
                let fault = unneeded(FindingKind::FileUnreferenced, "no row speaks of this blob");
                let path = store.blobs.path(&blob);
                self.find(fault, blob.to_string(), Some(&path), nobody(), WayOut::Repair);
            }
        }
        for (key, _) in listing.indexes {
            if !store.needs_index(&needed, &key) {
                let fault = unneeded(FindingKind::FileUnreferenced, "no row needs this index");
                let path = store.indexes.path(&key);
                let subject = store.shown(&path);
                self.find(fault, subject, Some(&path), nobody(), WayOut::Repair);
            }
        }
        for path in listing.foreign {
            let fault = unneeded(FindingKind::FileForeign, "Kiln makes no files of this name");
            let subject = store.shown(&path);
            self.find(fault, subject, Some(&path), nobody(), WayOut::Repair);
        }
        for Leftover { path, bytes } in stale {
            let problem = format!("a writer left it behind, with {bytes} bytes");
            let subject = store.shown(&path);
            let fault = unneeded(FindingKind::FileTemporary, &problem);
            self.find(fault, subject, Some(&path), nobody(), WayOut::Repair);
        }
        Ok(())
    }
}
