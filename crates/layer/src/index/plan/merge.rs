//! Copies a layer's directories into the plan.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::lookup::Place;
use super::{DevicePolicy, Leaf, LeafKind, Node, PlanChild, PlanDirectory, Planner};
use crate::error::LayerError;
use crate::index::lower::{LowerDirectory, LowerEntry};
use crate::index::reader::{EntryKind, IndexEntry};
use crate::name::{MAX_MADE, Printable, join};
use crate::tree::{Child, Directory, Dropped, InodeKind, What};

/// An implied directory that is a symlink: its content belongs to the symlink's target.
pub(super) struct Move<'t> {
    directory: usize,
    name: &'t [u8],
    target: Vec<u8>,
    content: &'t Directory,
}

/// A hardlink to something that the layer does not have under that name.
pub(super) struct Link<'t> {
    directory: usize,
    name: &'t [u8],
    target: &'t [Box<[u8]>],
    seq: u64,
}

impl<'t> Planner<'t, '_> {
    /// Copies what `source` holds into directory `at`.
    pub(super) fn merge(&mut self, at: usize, source: &'t Directory) -> Result<(), LayerError> {
        self.plan.directories[at].opaque |= source.opaque;
        for (name, child) in &source.children {
            match &child.what {
                None => self.put(at, name, Node::Whiteout, child.seq)?,
                Some(What::Inode(inode)) => {
                    let node = self.node_of_inode(*inode, at, name);
                    self.put(at, name, node, child.seq)?;
                }
                Some(What::LowerLink(target)) => {
                    self.links.push(Link { directory: at, name, target, seq: child.seq });
                }
                Some(What::Directory(directory)) => self.merge_child(at, name, child, directory)?,
            }
        }
        Ok(())
    }

    fn merge_child(
        &mut self,
        at: usize,
        name: &'t [u8],
        child: &'t Child,
        source: &'t Directory,
    ) -> Result<(), LayerError> {
        let existing = self.plan.directories[at].children.get(name).copied();
        let described = source.attributes.as_ref().map(|_| child.seq);
        if let Some(PlanChild { node: Node::Directory(number), .. }) = existing {
            if child.hides_lower {
                self.hide_lower(number);
            }
            let directory = &mut self.plan.directories[number];
            if let Some(attributes) = &source.attributes
                && directory.described < described
            {
                directory.attributes = Cow::Borrowed(attributes);
                directory.described = described;
            }
            return self.merge(number, source);
        }
        let hides_lower =
            child.hides_lower || existing.is_some_and(|existing| existing.node == Node::Whiteout);
        let implied = source.attributes.is_none();
        if let Some(PlanChild { node: Node::Leaf(leaf), seq }) = existing {
            if implied {
                return match &self.plan.leaves[leaf].kind {
                    LeafKind::Symlink(target) => {
                        let target = target.to_vec();
                        self.moves.push(Move { directory: at, name, target, content: source });
                        Ok(())
                    }
                    _ => Err(self.not_a_directory(at, name)),
                };
            }
            if seq > child.seq {
                return Ok(());
            }
        }
        let mut lower = None;
        if !hides_lower {
            match self.lower_child(at, name)? {
                Some(LowerEntry::Directory(directory)) => lower = Some(directory),
                Some(LowerEntry::Other(_, entry)) if implied => match entry.kind {
                    EntryKind::Symlink(target) => {
                        self.moves.push(Move { directory: at, name, target, content: source });
                        return Ok(());
                    }
                    _ => return Err(self.not_a_directory(at, name)),
                },
                Some(LowerEntry::Other(..)) | None => {}
            }
        }
        let attributes = self.directory_attributes(source.attributes.as_ref(), lower.as_ref())?;
        let directory = self.plan.directories.len();
        self.plan.directories.push(PlanDirectory {
            attributes,
            opaque: hides_lower,
            parent: at,
            children: BTreeMap::new(),
            name: Cow::Borrowed(name),
            described,
            lower,
        });
        let node = Node::Directory(directory);
        let child = PlanChild { node, seq: child.seq };
        self.plan.directories[at].children.insert(Cow::Borrowed(name), child);
        self.merge(directory, source)
    }

    /// Moves the content of implied directories that are symlinks to where they point.
    pub(super) fn settle_moves(&mut self) -> Result<(), LayerError> {
        // Moved content may hold more of them; each is moved once for every directory of the layer.
        while let Some(Move { directory, name, target, content }) = self.moves.pop() {
            let entry = self.path(directory, name);
            let named = entry.clone();
            let places = self.places_of(directory);
            let places = self.resolve(places, &target).map_err(|problem| {
                let target = Printable(&target);
                let problem = format!(
                    "the layers below have a symlink to `{target}` where this layer needs a directory; {problem}"
                );
                LayerError::Placement { entry, problem }
            })?;
            let directory = self.ensure(places, &named)?;
            self.merge(directory, content)?;
        }
        Ok(())
    }

    /// Gives hardlinks that wait for the layers below what they link to.
    pub(super) fn settle_links(&mut self) -> Result<(), LayerError> {
        for Link { directory, name, target, seq } in std::mem::take(&mut self.links) {
            let node = self.link_target(target, seq).map_err(|problem| match problem {
                LinkError::Layer(error) => error,
                LinkError::Problem(problem) => {
                    let target = join(target);
                    let problem =
                        format!("the hardlink's target `{}` {problem}", Printable(&target));
                    LayerError::Placement { entry: self.path(directory, name), problem }
                }
            })?;
            self.put(directory, name, node, seq)?;
        }
        Ok(())
    }

    /// Overlayfs merges the roots of all layers whatever their marks say. So an opaque root hides the names of
    /// the layers below one by one.
    pub(super) fn settle_root(&mut self) -> Result<(), LayerError> {
        let root = &mut self.plan.directories[0];
        if !std::mem::take(&mut root.opaque) {
            return Ok(());
        }
        let Some(lower) = root.lower.clone() else { return Ok(()) };
        for name in self.lower.names(&lower)? {
            let existing = self.plan.directories[0].children.get(&name[..]).map(|child| child.node);
            match existing {
                None => {
                    let child = PlanChild { node: Node::Whiteout, seq: 0 };
                    self.plan.directories[0].children.insert(Cow::Owned(name), child);
                }
                Some(Node::Directory(directory)) => self.hide_lower(directory),
                Some(Node::Leaf(_) | Node::Whiteout) => {}
            }
        }
        Ok(())
    }

    fn link_target(&mut self, target: &[Box<[u8]>], seq: u64) -> Result<Node, LinkError> {
        let (name, parents) = target.split_last().expect("a link's target is never the root");
        let root = self.places_of(0);
        let places = self.resolve(root, &join(parents)).map_err(LinkError::Problem)?;
        let place = places.last().expect("the root is always there");
        if let Some(directory) = place.plan {
            let child = self.plan.directories[directory].children.get(&name[..]);
            match child {
                Some(PlanChild { node: node @ Node::Leaf(_), seq: earlier }) if *earlier < seq => {
                    return Ok(*node);
                }
                Some(PlanChild { node: Node::Directory(_), .. }) => {
                    return Err(LinkError::Problem("is a directory".to_owned()));
                }
                _ => {}
            }
        }
        // Whiteouts of this layer do not matter: a tar may remove a name after it was linked to.
        let lower = match place.plan {
            Some(directory) => self.plan.directories[directory].lower.as_ref(),
            None => place.lower.as_ref(),
        };
        let entry = match lower {
            Some(lower) => self.lower.child(lower, name).map_err(LinkError::Layer)?,
            None => None,
        };
        match entry {
            Some(LowerEntry::Other(layer, entry)) => {
                self.leaf_of_lower(layer, *entry).map(Node::Leaf)
            }
            Some(LowerEntry::Directory(_)) => Err(LinkError::Problem("is a directory".to_owned())),
            None => Err(LinkError::Problem(
                "is neither an earlier entry of this layer nor in the layers below".to_owned(),
            )),
        }
    }

    fn leaf_of_lower(&mut self, layer: usize, entry: IndexEntry) -> Result<usize, LinkError> {
        let key = (layer, entry.ino);
        if let Some(leaf) = self.leaf_of_lower.get(&key) {
            return Ok(*leaf);
        }
        let kind = match &entry.kind {
            EntryKind::File(extents) => match extents[..] {
                [] => LeafKind::File { tar: 0, offset: 0, size: 0 },
                [extent] => {
                    let blocks = self.lower.blocks_of(layer, &extent.tar).unwrap_or(0);
                    let known = self.plan.tars.iter().position(|(tar, _)| *tar == extent.tar);
                    let tar = known.unwrap_or_else(|| {
                        self.plan.tars.push((extent.tar, blocks));
                        self.plan.tars.len() - 1
                    });
                    LeafKind::File { tar, offset: extent.offset, size: extent.len }
                }
                _ => return Err(LinkError::Problem("is not in one piece".to_owned())),
            },
            EntryKind::Symlink(target) => LeafKind::Symlink(Cow::Owned(target.clone())),
            EntryKind::CharDevice { major, minor } => {
                LeafKind::CharDevice { major: *major, minor: *minor }
            }
            EntryKind::BlockDevice { major, minor } => {
                LeafKind::BlockDevice { major: *major, minor: *minor }
            }
            EntryKind::Fifo => LeafKind::Fifo,
            EntryKind::Directory | EntryKind::Whiteout => {
                unreachable!("the merged view shows neither as an entry of another kind")
            }
        };
        let leaf = self.plan.leaves.len();
        self.plan.leaves.push(Leaf { attributes: Cow::Owned(entry.into_attributes()), kind });
        self.leaf_of_lower.insert(key, leaf);
        Ok(leaf)
    }

    fn node_of_inode(&mut self, inode: usize, at: usize, name: &[u8]) -> Node {
        let source = &self.tree.inodes[inode];
        let kind = match &source.kind {
            InodeKind::CharDevice { major, minor } | InodeKind::BlockDevice { major, minor }
                if self.devices == DevicePolicy::Drop =>
            {
                let path = format!("/{}", self.path(at, name));
                let reason = format!("device node {major}:{minor}");
                self.plan.dropped.push(Dropped { path, reason });
                return Node::Whiteout;
            }
            InodeKind::CharDevice { major, minor } => {
                LeafKind::CharDevice { major: *major, minor: *minor }
            }
            InodeKind::BlockDevice { major, minor } => {
                LeafKind::BlockDevice { major: *major, minor: *minor }
            }
            InodeKind::File { offset, size } => {
                LeafKind::File { tar: 0, offset: *offset, size: *size }
            }
            InodeKind::Symlink(target) => LeafKind::Symlink(Cow::Borrowed(target)),
            InodeKind::Fifo => LeafKind::Fifo,
        };
        let leaves = &mut self.plan.leaves;
        Node::Leaf(*self.leaf_of_inode.entry(inode).or_insert_with(|| {
            leaves.push(Leaf { attributes: Cow::Borrowed(&source.attributes), kind });
            leaves.len() - 1
        }))
    }

    /// Adds a leaf or a whiteout. Names meet only where content was moved; then the later entry counts.
    fn put(&mut self, at: usize, name: &'t [u8], node: Node, seq: u64) -> Result<(), LayerError> {
        let existing = self.plan.directories[at].children.get(name).copied();
        match (existing, node) {
            (Some(PlanChild { node: Node::Directory(directory), .. }), Node::Whiteout) => {
                self.hide_lower(directory);
                return Ok(());
            }
            (Some(PlanChild { node: Node::Directory(directory), .. }), Node::Leaf(_)) => {
                if self.plan.directories[directory].described > Some(seq) {
                    return Ok(());
                }
                if self.holds_later(directory, seq) {
                    return Err(self.two_spellings(at, name));
                }
            }
            (Some(PlanChild { node: Node::Leaf(_), .. }), Node::Whiteout) => return Ok(()),
            (Some(PlanChild { node: Node::Leaf(_), seq: other }), _) if other > seq => {
                return Ok(());
            }
            _ => {}
        }
        self.plan.directories[at].children.insert(Cow::Borrowed(name), PlanChild { node, seq });
        Ok(())
    }

    /// Whether anything in `directory` comes from a later member of the archive than `seq`.
    fn holds_later(&self, directory: usize, seq: u64) -> bool {
        let mut open = vec![directory];
        while let Some(directory) = open.pop() {
            for child in self.plan.directories[directory].children.values() {
                match child.node {
                    Node::Directory(number) => open.push(number),
                    Node::Leaf(_) | Node::Whiteout if child.seq > seq => return true,
                    Node::Leaf(_) | Node::Whiteout => {}
                }
                if let Node::Directory(number) = child.node
                    && self.plan.directories[number].described > Some(seq)
                {
                    return true;
                }
            }
        }
        false
    }

    fn two_spellings(&self, at: usize, name: &[u8]) -> LayerError {
        LayerError::Placement {
            entry: self.path(at, name),
            problem:
                "symlinks of the layers below make it one with another entry of this layer: it \
                      is a directory and none; spell both the same way"
                    .to_owned(),
        }
    }

    fn hide_lower(&mut self, directory: usize) {
        let directory = &mut self.plan.directories[directory];
        directory.opaque = true;
        directory.lower = None;
    }

    /// What the layers below show under a name of directory `at`.
    fn lower_child(&self, at: usize, name: &[u8]) -> Result<Option<LowerEntry>, LayerError> {
        match self.visible_lower(at) {
            Some(lower) => self.lower.child(lower, name),
            None => Ok(None),
        }
    }

    pub(super) fn visible_lower(&self, at: usize) -> Option<&LowerDirectory> {
        let directory = &self.plan.directories[at];
        directory.lower.as_ref().filter(|_| !directory.opaque)
    }

    fn not_a_directory(&self, at: usize, name: &[u8]) -> LayerError {
        LayerError::Placement {
            entry: self.path(at, name),
            problem: "this layer has entries below it, but it is not a directory there, nor does \
                      this layer make it one"
                .to_owned(),
        }
    }

    /// Makes the last of `places` a directory of the plan, and all on the way.
    fn ensure(&mut self, places: Vec<Place<'t>>, entry: &str) -> Result<usize, LayerError> {
        let mut at = 0;
        for place in places.into_iter().skip(1) {
            if let Some(directory) = place.plan {
                at = directory;
                continue;
            }
            self.made += 1;
            if self.made > MAX_MADE {
                return Err(LayerError::Placement {
                    entry: entry.to_owned(),
                    problem: format!(
                        "symlinks of the layers below lead to more than {MAX_MADE} directories that \
                         are not there"
                    ),
                });
            }
            let attributes = self.directory_attributes(None, place.lower.as_ref())?;
            let directory = self.plan.directories.len();
            let hidden = self.plan.directories[at].children.contains_key(&place.name);
            self.plan.directories.push(PlanDirectory {
                attributes,
                opaque: hidden,
                parent: at,
                children: BTreeMap::new(),
                name: place.name.clone(),
                described: None,
                lower: place.lower,
            });
            let child = PlanChild { node: Node::Directory(directory), seq: 0 };
            self.plan.directories[at].children.insert(place.name, child);
            at = directory;
        }
        Ok(at)
    }
}

/// Why a hardlink has no target.
enum LinkError {
    Layer(LayerError),
    Problem(String),
}
