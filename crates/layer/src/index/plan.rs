//! The tree that an index shows: a layer's tree, placed on the layers below.
//!
//! Most of it is a copy. What needs the layers below are directories that the layer implies (they keep the
//! attributes that they have there, or turn out to be symlinks and move) and hardlinks to what only they have.

mod lookup;
mod merge;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use kiln_types::DiffId;

use super::lower::{Lower, LowerDirectory};
use super::{DevicePolicy, Index, IndexOptions};
use crate::attributes::Attributes;
use crate::error::LayerError;
use crate::name::Printable;
use crate::tree::{Dropped, LayerTree};

/// Directories and leaves by number; the root is directory 0.
#[derive(Debug)]
pub(crate) struct Plan<'t> {
    pub(crate) directories: Vec<PlanDirectory<'t>>,
    pub(crate) leaves: Vec<Leaf<'t>>,
    /// The tars that leaves refer to and their sizes in blocks; the layer's own is first.
    pub(crate) tars: Vec<(DiffId, u32)>,
    pub(crate) dropped: Vec<Dropped>,
}

/// A directory to write.
#[derive(Debug)]
pub(crate) struct PlanDirectory<'t> {
    pub(crate) attributes: Cow<'t, Attributes>,
    /// Hides what the layers below have in it.
    pub(crate) opaque: bool,
    pub(crate) parent: usize,
    pub(crate) children: BTreeMap<Cow<'t, [u8]>, PlanChild>,
    name: Cow<'t, [u8]>,
    /// Number of the archive member that describes it; `None` if it is implied.
    described: Option<u64>,
    /// What the layers below have in its place, even if `opaque` hides the content.
    lower: Option<LowerDirectory>,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanChild {
    pub(crate) node: Node,
    /// Number of the archive member that it comes from.
    seq: u64,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory(usize),
    Leaf(usize),
    Whiteout,
}

/// A non-directory to write.
#[derive(Debug)]
pub(crate) struct Leaf<'t> {
    pub(crate) attributes: Cow<'t, Attributes>,
    pub(crate) kind: LeafKind<'t>,
}

/// The kinds of leaves.
#[derive(Debug)]
pub(crate) enum LeafKind<'t> {
    /// `tar` is an index into [`Plan::tars`].
    File {
        tar: usize,
        offset: u64,
        size: u64,
    },
    Symlink(Cow<'t, [u8]>),
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

/// Places `tree` on `parents` (base first).
pub(crate) fn plan<'t>(
    tree: &'t LayerTree,
    tar: (DiffId, u32),
    parents: &[Index],
    options: &IndexOptions,
) -> Result<Plan<'t>, LayerError> {
    // An index that is keyed by the layer alone must not depend on anything else.
    let parents = if tree.needs_parents() { parents } else { &[] };
    let lower = Lower::new(parents);
    let root = lower.root();
    let mut planner = Planner {
        tree,
        lower,
        devices: options.devices,
        plan: Plan {
            directories: Vec::new(),
            leaves: Vec::new(),
            tars: vec![tar],
            dropped: Vec::new(),
        },
        leaf_of_inode: HashMap::new(),
        leaf_of_lower: HashMap::new(),
        moves: Vec::new(),
        links: Vec::new(),
        steps: 0,
        made: 0,
    };
    planner.add_root(root)?;
    planner.merge(0, &tree.root)?;
    planner.settle_moves()?;
    planner.settle_links()?;
    planner.check_left()?;
    planner.settle_root()?;
    Ok(planner.plan)
}

/// The state of [`plan`].
struct Planner<'t, 'p> {
    tree: &'t LayerTree,
    lower: Lower<'p>,
    devices: DevicePolicy,
    plan: Plan<'t>,
    leaf_of_inode: HashMap<usize, usize>,
    /// By layer and inode number.
    leaf_of_lower: HashMap<(usize, u64), usize>,
    moves: Vec<merge::Move<'t>>,
    links: Vec<merge::Link<'t>>,
    /// Names that were looked up on the ways through symlinks.
    steps: u64,
    /// Directories that were made because symlinks lead to them.
    made: usize,
}

impl<'t> Planner<'t, '_> {
    fn add_root(&mut self, lower: Option<LowerDirectory>) -> Result<(), LayerError> {
        let attributes =
            self.directory_attributes(self.tree.root.attributes.as_ref(), lower.as_ref())?;
        self.plan.directories.push(PlanDirectory {
            attributes,
            opaque: false,
            parent: 0,
            children: BTreeMap::new(),
            name: Cow::Borrowed(b""),
            described: None,
            lower,
        });
        Ok(())
    }

    /// Its own attributes, else those that the layers below show, else the default.
    fn directory_attributes(
        &self,
        own: Option<&'t Attributes>,
        lower: Option<&LowerDirectory>,
    ) -> Result<Cow<'t, Attributes>, LayerError> {
        Ok(match (own, lower) {
            (Some(attributes), _) => Cow::Borrowed(attributes),
            (None, Some(lower)) => Cow::Owned(self.lower.attributes(lower)?.into_attributes()),
            (None, None) => Cow::Owned(Attributes::implied_directory()),
        })
    }

    /// The path of `name` in `directory`, for people.
    fn path(&self, directory: usize, name: &[u8]) -> String {
        let mut parts = vec![Printable(name).to_string()];
        let mut at = directory;
        while at != 0 {
            let directory = &self.plan.directories[at];
            parts.push(Printable(&directory.name).to_string());
            at = directory.parent;
        }
        parts.reverse();
        parts.join("/")
    }
}
