//! What one layer says about a file tree, free of everything that only matters to the archive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::attributes::Attributes;

mod apply;
mod follow;
mod whiteout;
mod xattrs;

pub(crate) use apply::Applier;
pub(crate) use whiteout::{Meaning, meaning};

/// A layer's changes as a tree: what it adds, what it hides, and which directories it only implies.
#[derive(Debug)]
pub struct LayerTree {
    pub(crate) root: Directory,
    pub(crate) inodes: Vec<Inode>,
    pub(crate) dropped: Vec<Dropped>,
    pub(crate) dropped_count: u64,
    pub(crate) entries: u64,
    /// Paths that a symlink of this layer leads out of by `..` and that no entry described at that point:
    /// they may not be symlinks in the layers below.
    pub(crate) left: BTreeSet<Vec<u8>>,
}

/// Trees are walked by recursion; this many levels fit any stack.
const DEPTH_MAX: usize = 2048;

/// How much of what was dropped is remembered one by one.
const DROPPED_LISTED: usize = 1000;

/// Something that the archive holds and the tree does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The entry's path, with everything escaped that a terminal could trip over.
    pub path: String,
    /// What was dropped, and why.
    pub reason: String,
}

impl LayerTree {
    /// Whether the index of this layer depends on the layers below it.
    ///
    /// If so, the index belongs to the *chain* (key it by chainID); if not, to the layer (diffID).
    pub fn needs_parents(&self) -> bool {
        // An opaque root has to name what it hides; see `Planner::settle_root`.
        self.root.opaque || !self.left.is_empty() || self.root.needs_parents(false)
    }

    /// What was left out of the tree although the archive holds it: the first thousand of
    /// [`LayerTree::dropped_count`].
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }

    /// How many things were left out.
    pub fn dropped_count(&self) -> u64 {
        self.dropped_count
    }

    /// Members of the archive.
    pub fn entries(&self) -> u64 {
        self.entries
    }
}

/// A directory of a layer.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// `None` when entries lie below it but none describes it.
    pub(crate) attributes: Option<Attributes>,
    /// `.wh..wh..opq`: hides everything that the layers below have in it, but not the directory.
    pub(crate) opaque: bool,
    pub(crate) children: BTreeMap<Box<[u8]>, Child>,
}

/// One name in a directory.
#[derive(Debug)]
pub(crate) struct Child {
    /// `.wh.name`: hides what the layers below have under this name.
    pub(crate) hides_lower: bool,
    /// What the layer itself has there.
    pub(crate) what: Option<What>,
    /// Number of the last archive member that concerned this name.
    pub(crate) seq: u64,
}

/// What a name stands for.
#[derive(Debug)]
pub(crate) enum What {
    Directory(Box<Directory>),
    /// Index into [`LayerTree::inodes`].
    Inode(usize),
    /// A hardlink to something that no earlier member of this layer describes: components as spelled.
    /// Shared, since links to the link stand for the same.
    LowerLink(Arc<[Box<[u8]>]>),
}

/// A non-directory. Several names may share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) attributes: Attributes,
    pub(crate) kind: InodeKind,
}

/// The kinds of non-directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InodeKind {
    /// Data of `size` bytes at `offset` of the layer's tar; `offset` is a multiple of 512.
    File {
        offset: u64,
        size: u64,
    },
    Symlink(Vec<u8>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

impl Directory {
    /// `cut`: nothing of the layers below is visible here.
    fn needs_parents(&self, cut: bool) -> bool {
        if self.attributes.is_none() && !cut {
            return true;
        }
        let cut = cut || self.opaque;
        self.children.values().any(|child| match &child.what {
            Some(What::Directory(directory)) => directory.needs_parents(cut || child.hides_lower),
            Some(What::LowerLink(_)) => true,
            Some(What::Inode(_)) | None => false,
        })
    }
}
