//! Archive members → tree, in the order of the archive: of two members with one path the later wins.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::follow::Effort;
use super::whiteout::{Meaning, meaning};
use super::xattrs;
use super::{
    Child, DEPTH_MAX, DROPPED_LISTED, Directory, Dropped, Inode, InodeKind, LayerTree, What,
};
use crate::attributes::{Attributes, Xattr};
use crate::error::{EntryProblem, LayerError};
use crate::limits::Limits;
use crate::name::{NAME_MAX, Printable, components, join};
use crate::tar::{Member, MemberKind};

/// Builds a [`LayerTree`].
pub(crate) struct Applier<'l> {
    limits: &'l Limits,
    tree: LayerTree,
    /// Directories that were made because something lies below them.
    implied: u64,
    metadata_bytes: u64,
    /// For following symlinks.
    effort: Effort,
}

impl<'l> Applier<'l> {
    pub(crate) fn new(limits: &'l Limits) -> Self {
        let tree = LayerTree {
            root: Directory::default(),
            inodes: Vec::new(),
            dropped: Vec::new(),
            dropped_count: 0,
            entries: 0,
            left: BTreeSet::new(),
        };
        Self { limits, tree, implied: 0, metadata_bytes: 0, effort: Effort::default() }
    }

    pub(crate) fn finish(self) -> LayerTree {
        self.tree
    }

    /// Takes over one member. Its data, if any, starts at `data_offset`.
    pub(crate) fn apply(&mut self, member: Member, data_offset: u64) -> Result<(), LayerError> {
        self.tree.entries += 1;
        self.metadata_bytes += member.metadata_bytes();
        self.check_limits(&member.path)?;
        self.apply_member(&member, data_offset)?;
        self.check_limits(&member.path)
    }

    fn check_limits(&self, path: &[u8]) -> Result<(), LayerError> {
        let Limits { entries, metadata_bytes, .. } = *self.limits;
        let (what, name, limit) = if self.tree.entries + self.implied > entries {
            ("entries, directories that they imply included", "entries", entries)
        } else if self.metadata_bytes > metadata_bytes {
            ("bytes of names, link targets and xattrs", "metadata_bytes", metadata_bytes)
        } else {
            return Ok(());
        };
        Err(LayerError::Limit { entry: String::new(), what, name, limit }.at_entry(path))
    }

    fn apply_member(&mut self, member: &Member, data_offset: u64) -> Result<(), LayerError> {
        let fail = |problem| LayerError::entry(&member.path, member.offset, problem);
        let path = self.checked_path(&member.path).map_err(fail)?;
        let Some((name, parents)) = path.split_last() else {
            return self.apply_root(member).map_err(fail);
        };
        if path.iter().any(|part| meaning(part) == Meaning::AufsMetadata) {
            return Ok(());
        }
        if let Some(part) = parents.iter().find(|part| meaning(part) != Meaning::Entry) {
            return Err(fail(EntryProblem::BelowNonDirectory(Printable(part).to_string())));
        }
        if meaning(name) == Meaning::Nonsense {
            return Err(fail(EntryProblem::Whiteout));
        }
        let followed = self.tree.follow(parents, &mut self.effort, self.limits).map_err(fail)?;
        let Some(followed) = followed else {
            return self.apply_at(member, data_offset, name, parents).map_err(fail);
        };
        let parents: Vec<&[u8]> = followed.path.iter().map(|part| &**part).collect();
        let implied = self.implied;
        self.apply_at(member, data_offset, name, &parents).map_err(fail)?;
        self.effort.made(self.implied - implied, &followed.link).map_err(fail)
    }

    /// `parents`: without symlinks of this layer.
    fn apply_at(
        &mut self,
        member: &Member,
        data_offset: u64,
        name: &[u8],
        parents: &[&[u8]],
    ) -> Result<(), EntryProblem> {
        let seq = self.tree.entries;
        match meaning(name) {
            Meaning::Nonsense => Err(EntryProblem::Whiteout),
            Meaning::AufsMetadata => Ok(()),
            Meaning::Opaque => {
                self.directory(parents, seq)?.opaque = true;
                Ok(())
            }
            Meaning::Whiteout(hidden) => {
                let directory = self.directory(parents, seq)?;
                let child = directory.children.entry(hidden.into()).or_insert_with(Child::empty);
                child.hides_lower = true;
                child.seq = child.seq.max(seq);
                Ok(())
            }
            Meaning::Entry => self.apply_entry(member, data_offset, name, parents),
        }
    }

    fn checked_path<'p>(&self, path: &'p [u8]) -> Result<Vec<&'p [u8]>, EntryProblem> {
        if path.is_empty() {
            return Err(EntryProblem::Path("it is empty"));
        }
        if path.contains(&0) {
            return Err(EntryProblem::Path("it holds a NUL byte"));
        }
        let parts: Vec<&[u8]> = components(path).collect();
        let bytes = parts.iter().map(|part| part.len() + 1).sum::<usize>();
        let limit =
            |what, name, limit: usize| EntryProblem::Limit { what, name, limit: limit as u64 };
        if bytes > self.limits.path_bytes {
            return Err(limit("path", "path_bytes", self.limits.path_bytes));
        }
        let depth = self.limits.depth.min(DEPTH_MAX);
        if parts.len() > depth {
            return Err(limit("chain of directories", "depth", depth));
        }
        for part in &parts {
            if *part == b".." {
                return Err(EntryProblem::ParentComponent);
            }
            // Whiteouts may hide a name of full length, so their prefix does not count.
            let name = if let Meaning::Whiteout(hidden) = meaning(part) { hidden } else { part };
            if name.len() > NAME_MAX {
                return Err(EntryProblem::Path("a component is longer than 255 bytes"));
            }
        }
        Ok(parts)
    }

    fn apply_root(&mut self, member: &Member) -> Result<(), EntryProblem> {
        if member.kind != MemberKind::Directory {
            return Err(EntryProblem::Path("it names the root, which is always a directory"));
        }
        self.tree.root.attributes = Some(self.attributes(member)?);
        Ok(())
    }

    fn apply_entry(
        &mut self,
        member: &Member,
        data_offset: u64,
        name: &[u8],
        parents: &[&[u8]],
    ) -> Result<(), EntryProblem> {
        let seq = self.tree.entries;
        let kind = match &member.kind {
            MemberKind::Directory => {
                let attributes = self.attributes(member)?;
                let child = self.child(parents, name, seq)?;
                let directory = match child.what.take() {
                    Some(What::Directory(directory)) => {
                        Box::new(Directory { attributes: Some(attributes), ..*directory })
                    }
                    replaced => {
                        // What was replaced had hidden what the layers below have there.
                        child.hides_lower |= replaced.is_some();
                        Box::new(Directory { attributes: Some(attributes), ..Directory::default() })
                    }
                };
                child.what = Some(What::Directory(directory));
                return Ok(());
            }
            MemberKind::Hardlink(target) => {
                let what = self.link(&[parents, &[name]].concat(), &member.path, target)?;
                self.child(parents, name, seq)?.what = Some(what);
                return Ok(());
            }
            MemberKind::CharDevice { major: 0, minor: 0 } => {
                // Still refuse what could not be placed.
                self.directory(parents, seq)?;
                self.drop(member, "character device 0:0, which overlayfs takes for a whiteout");
                return Ok(());
            }
            MemberKind::File => InodeKind::File { offset: data_offset, size: member.size },
            MemberKind::Symlink(target) => InodeKind::Symlink(self.symlink_target(target)?),
            MemberKind::CharDevice { major, minor } => {
                InodeKind::CharDevice { major: *major, minor: *minor }
            }
            MemberKind::BlockDevice { major, minor } => {
                InodeKind::BlockDevice { major: *major, minor: *minor }
            }
            MemberKind::Fifo => InodeKind::Fifo,
        };
        let attributes = self.attributes(member)?;
        let id = self.tree.inodes.len();
        self.child(parents, name, seq)?.what = Some(What::Inode(id));
        self.tree.inodes.push(Inode { attributes, kind });
        Ok(())
    }

    fn symlink_target(&self, target: &[u8]) -> Result<Vec<u8>, EntryProblem> {
        let fail =
            |problem| Err(EntryProblem::Link { target: Printable(target).to_string(), problem });
        if target.is_empty() {
            return fail("is empty");
        }
        if target.contains(&0) {
            return fail("holds a NUL byte");
        }
        if target.len() > self.limits.symlink_bytes {
            let limit = self.limits.symlink_bytes as u64;
            return Err(EntryProblem::Limit { what: "target", name: "symlink_bytes", limit });
        }
        Ok(target.to_vec())
    }

    /// What a hardlink to `target` stands for. `at` is where the link itself goes, `path` how it is spelled.
    fn link(&mut self, at: &[&[u8]], path: &[u8], target: &[u8]) -> Result<What, EntryProblem> {
        let spelled = Printable(target).to_string();
        let fail = |problem| EntryProblem::Link { target: spelled.clone(), problem };
        let parts = self.checked_path(target).map_err(|problem| match problem {
            EntryProblem::ParentComponent => fail("has a `..` component"),
            EntryProblem::Path(_) => fail("is not a usable path"),
            other => other,
        })?;
        if parts.is_empty() {
            return Err(fail("is the root directory"));
        }
        if parts.iter().any(|part| meaning(part) != Meaning::Entry) {
            return Err(fail("is a whiteout"));
        }
        let own: Vec<&[u8]> = components(path).collect();
        if parts.starts_with(&own) {
            return Err(fail("is the entry itself, or lies below it"));
        }
        let (name, parents) = parts.split_last().expect("the root is refused above");
        let followed = self.tree.follow(parents, &mut self.effort, self.limits);
        let followed = followed.map_err(|problem| match problem {
            EntryProblem::BelowNonDirectory(_) => {
                fail("lies below something that is not a directory")
            }
            other => other,
        })?;
        let parts: Vec<&[u8]> = match &followed {
            Some(followed) => followed.path.iter().map(|part| &**part).chain([*name]).collect(),
            None => parts,
        };
        if parts.starts_with(at) {
            return Err(fail("is the entry itself, or lies below it"));
        }
        match self.tree.root.find(&parts) {
            Found::Nothing => Ok(What::LowerLink(parts.into_iter().map(Into::into).collect())),
            Found::BelowNonDirectory => Err(fail("lies below something that is not a directory")),
            Found::What(What::Directory(directory)) if directory.attributes.is_none() => {
                Err(fail("is a directory that this layer implies"))
            }
            Found::What(What::Directory(_)) => Err(fail("is a directory")),
            Found::What(What::Inode(id)) => Ok(What::Inode(*id)),
            Found::What(What::LowerLink(lower)) => Ok(What::LowerLink(Arc::clone(lower))),
        }
    }

    /// The attributes of a member, without the xattrs that a layer must not set.
    fn attributes(&mut self, member: &Member) -> Result<Attributes, EntryProblem> {
        let bytes: usize = member.xattrs.iter().map(|x| x.name.len() + x.value.len()).sum();
        if bytes > self.limits.xattr_bytes {
            let limit = self.limits.xattr_bytes as u64;
            return Err(EntryProblem::Limit { what: "xattrs", name: "xattr_bytes", limit });
        }
        for ignored in &member.ignored {
            self.drop(member, ignored);
        }
        let mut xattrs: Vec<Xattr> = Vec::with_capacity(member.xattrs.len());
        for xattr in &member.xattrs {
            match xattrs::reason_to_drop(xattr) {
                Some(reason) => {
                    self.drop(member, &format!("xattr `{}`: {reason}", Printable(&xattr.name)));
                }
                None => xattrs.push(xattr.clone()),
            }
        }
        // The last record of a name wins: a stable sort keeps their order.
        xattrs.sort_by(|a, b| a.name.cmp(&b.name));
        xattrs.reverse();
        xattrs.dedup_by(|later, kept| later.name == kept.name);
        xattrs.reverse();
        xattrs::check(&xattrs, member.kind == MemberKind::Directory)?;
        let Member { mode, uid, gid, mtime, .. } = *member;
        Ok(Attributes { mode, uid, gid, mtime, xattrs })
    }

    fn drop(&mut self, member: &Member, reason: &str) {
        self.tree.dropped_count += 1;
        if self.tree.dropped.len() >= DROPPED_LISTED {
            return;
        }
        let parts: Vec<&[u8]> = components(&member.path).collect();
        let path = format!("/{}", Printable(&join(&parts)));
        self.tree.dropped.push(Dropped { path, reason: reason.to_owned() });
    }

    fn child(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        seq: u64,
    ) -> Result<&mut Child, EntryProblem> {
        let directory = self.directory(parents, seq)?;
        let child = directory.children.entry(name.into()).or_insert_with(Child::empty);
        child.seq = seq;
        Ok(child)
    }

    /// The directory at `path`, with every absent one on the way implied.
    fn directory(&mut self, path: &[&[u8]], seq: u64) -> Result<&mut Directory, EntryProblem> {
        let mut at = &mut self.tree.root;
        for (depth, part) in path.iter().enumerate() {
            let child = at.children.entry((*part).into()).or_insert_with(Child::empty);
            if child.what.is_none() {
                child.what = Some(What::Directory(Box::default()));
                self.implied += 1;
                child.seq = child.seq.max(seq);
            }
            match child.what.as_mut().expect("just filled") {
                What::Directory(directory) => at = directory,
                What::Inode(_) | What::LowerLink(_) => {
                    let blocker = Printable(&join(&path[..=depth])).to_string();
                    return Err(EntryProblem::BelowNonDirectory(blocker));
                }
            }
        }
        Ok(at)
    }
}

enum Found<'t> {
    Nothing,
    BelowNonDirectory,
    What(&'t What),
}

impl Directory {
    fn find(&self, path: &[&[u8]]) -> Found<'_> {
        let Some((first, rest)) = path.split_first() else { return Found::Nothing };
        match self.children.get(*first).and_then(|child| child.what.as_ref()) {
            None => Found::Nothing,
            Some(what) if rest.is_empty() => Found::What(what),
            Some(What::Directory(directory)) => directory.find(rest),
            Some(_) => Found::BelowNonDirectory,
        }
    }
}

impl Child {
    fn empty() -> Self {
        Self { hides_lower: false, what: None, seq: 0 }
    }
}
