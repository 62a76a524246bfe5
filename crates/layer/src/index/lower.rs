//! The layers below, seen as overlayfs shows them.

use std::collections::BTreeSet;

use super::reader::{EntryKind, Index, IndexEntry};
use crate::error::LayerError;

/// The name that overlayfs gives to directories which hide everything below them.
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// The indexes of the layers below, top first.
pub(crate) struct Lower<'p> {
    layers: Vec<&'p Index>,
}

/// A merged directory: the layers that take part in it, top first, and its inode in each. Never empty.
#[derive(Clone, Debug)]
pub(crate) struct LowerDirectory(Vec<(usize, u64)>);

/// What the layers below show under a name.
#[derive(Debug)]
pub(crate) enum LowerEntry {
    Directory(LowerDirectory),
    /// Anything else, and the layer that has it (0 is the top one).
    Other(usize, Box<IndexEntry>),
}

impl<'p> Lower<'p> {
    /// `parents`: base first.
    pub(crate) fn new(parents: &'p [Index]) -> Self {
        Self { layers: parents.iter().rev().collect() }
    }

    pub(crate) fn root(&self) -> Option<LowerDirectory> {
        let all = self.layers.iter().enumerate().map(|(number, index)| (number, index.root()));
        let all: Vec<(usize, u64)> = all.collect();
        (!all.is_empty()).then_some(LowerDirectory(all))
    }

    /// What `directory` shows under `name`.
    pub(crate) fn child(
        &self,
        directory: &LowerDirectory,
        name: &[u8],
    ) -> Result<Option<LowerEntry>, LayerError> {
        let mut merged = Vec::new();
        for &(layer, nid) in &directory.0 {
            let index = self.layers[layer];
            let damaged = |damage| index.damaged(damage);
            let Some(nid) = index.child(nid, name).map_err(damaged)? else { continue };
            let entry = index.entry(nid).map_err(damaged)?;
            match entry.kind {
                EntryKind::Directory => {
                    merged.push((layer, nid));
                    let opaque = |x: &crate::Xattr| x.name == OPAQUE && x.value == b"y";
                    if entry.xattrs.iter().any(opaque) {
                        break;
                    }
                }
                EntryKind::Whiteout => break,
                // A directory above hides what is not one.
                _ if !merged.is_empty() => break,
                _ => return Ok(Some(LowerEntry::Other(layer, Box::new(entry)))),
            }
        }
        Ok((!merged.is_empty()).then_some(LowerEntry::Directory(LowerDirectory(merged))))
    }

    /// The names in `directory`, those that a whiteout hides included.
    pub(crate) fn names(
        &self,
        directory: &LowerDirectory,
    ) -> Result<BTreeSet<Vec<u8>>, LayerError> {
        let mut names = BTreeSet::new();
        for &(layer, nid) in &directory.0 {
            let index = self.layers[layer];
            let children = index.children(nid).map_err(|damage| index.damaged(damage))?;
            names.extend(children.into_iter().map(|(name, _)| name.to_vec()));
        }
        Ok(names)
    }

    /// Blocks of a tar that `layer` refers to.
    pub(crate) fn blocks_of(&self, layer: usize, tar: &kiln_types::DiffId) -> Option<u32> {
        self.layers[layer].blocks_of(tar)
    }

    /// The directory's own entry: that of the top-most layer.
    pub(crate) fn attributes(&self, directory: &LowerDirectory) -> Result<IndexEntry, LayerError> {
        let (layer, nid) = directory.0[0];
        self.layers[layer].entry(nid).map_err(|damage| self.layers[layer].damaged(damage))
    }
}
