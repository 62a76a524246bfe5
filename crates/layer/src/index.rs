//! The EROFS index of a layer: its writer, and a reader for what the writer makes.

use std::io::{Seek, Write};

use kiln_types::DiffId;

use crate::erofs::BLOCK;
use crate::error::LayerError;
use crate::tree::{Dropped, LayerTree};

mod check;
mod layout;
mod lower;
mod plan;
mod reader;
mod write;

pub use check::Totals;
pub use reader::{EntryKind, Extent, Index, IndexEntry, Walk};

/// What becomes of device nodes (other than 0:0, which never gets this far).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DevicePolicy {
    /// They are shown.
    Keep,
    /// They are replaced by whiteouts, so that neither they nor what they replaced is visible.
    #[default]
    Drop,
}

/// How an index is made. Two indexes under one key have to be made with the same options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexOptions {
    /// Device nodes.
    pub devices: DevicePolicy,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexInfo {
    /// The tars that the index refers to, in the order in which a mount has to name them. The layer's own is first.
    pub devices: Vec<DiffId>,
    /// Inodes.
    pub inodes: u64,
    /// Bytes of the index.
    pub size: u64,
    /// Device nodes left out by [`DevicePolicy::Drop`].
    pub dropped: Vec<Dropped>,
}

/// Writes the index of a layer with the default options.
///
/// `tar` and `tar_size` are those of the layer's uncompressed tar; `parents` are the indexes of the layers
/// below, base first, and only matter if [`LayerTree::needs_parents`]. The result depends on these arguments
/// alone. `out` is written from its start and flushed, not synced.
pub fn write_index(
    tree: &LayerTree,
    tar: DiffId,
    tar_size: u64,
    parents: &[Index],
    out: impl Write + Seek,
) -> Result<IndexInfo, LayerError> {
    write_index_with(tree, tar, tar_size, parents, &IndexOptions::default(), out)
}

/// Like [`write_index`], with options.
pub fn write_index_with(
    tree: &LayerTree,
    tar: DiffId,
    tar_size: u64,
    parents: &[Index],
    options: &IndexOptions,
    out: impl Write + Seek,
) -> Result<IndexInfo, LayerError> {
    let blocks = u32::try_from(tar_size.div_ceil(BLOCK)).ok().filter(|blocks| *blocks < u32::MAX);
    let blocks = blocks.ok_or_else(|| LayerError::Unrepresentable {
        entry: tar.to_string(),
        problem: "the tar is not smaller than 2 TiB".to_owned(),
    })?;
    let plan = plan::plan(tree, (tar, blocks), parents, options)?;
    write::write(plan, out)
}
