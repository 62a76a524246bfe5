//! Where a path leads through the symlinks that the layer itself has so far.
//!
//! What the layers below have is not known here. A name that this layer does not have is taken for a
//! directory; if it is a symlink below, the index finds out and follows it. Only `..` out of such a name
//! cannot wait for that, so those are remembered and looked at when the layers below are known.

use std::collections::{BTreeSet, VecDeque};

use super::{DEPTH_MAX, Directory, Inode, InodeKind, LayerTree, Meaning, What, meaning};
use crate::error::EntryProblem;
use crate::limits::Limits;
use crate::name::{MAX_MADE, MAX_STEPS, MAX_SYMLINKS, NAME_MAX, Printable, components, join};

/// Bytes of all paths that `..` leads out of without an entry that says what they are.
const MAX_LEFT_BYTES: usize = 16 << 20;

/// What remembering one of them takes besides.
const LEFT_OVERHEAD: usize = 64;

/// What following the symlinks of one layer has taken so far.
#[derive(Debug, Default)]
pub(super) struct Effort {
    steps: u64,
    made: u64,
    left_bytes: usize,
}

impl Effort {
    /// Counts directories that are made because a symlink leads to them.
    pub(super) fn made(&mut self, directories: u64, link: &str) -> Result<(), EntryProblem> {
        self.made += directories;
        if self.made > MAX_MADE as u64 {
            let problem = format!(
                "symlinks of this layer lead to more than {MAX_MADE} directories that are not there"
            );
            return Err(EntryProblem::Symlink { link: link.to_owned(), problem });
        }
        Ok(())
    }
}

/// A path without symlinks of the layer on its way.
pub(super) struct Followed {
    pub(super) path: Vec<Box<[u8]>>,
    /// The first symlink that was followed.
    pub(super) link: String,
}

/// A directory on the way, perhaps one that is not there yet.
struct Place<'t> {
    name: &'t [u8],
    /// Of the whole path.
    path_bytes: usize,
    directory: Option<&'t Directory>,
    /// Whether it is a directory whatever the layers below have.
    certain: bool,
    /// Nothing of the layers below is visible in it.
    cut: bool,
}

impl LayerTree {
    /// Where the directory `path` is; `None` if no symlink of this layer is on the way.
    pub(super) fn follow(
        &mut self,
        path: &[&[u8]],
        effort: &mut Effort,
        limits: &Limits,
    ) -> Result<Option<Followed>, EntryProblem> {
        if !self.root.has_leaf_on(path) {
            return Ok(None);
        }
        let mut way = Way {
            places: Vec::new(),
            root: &self.root,
            inodes: &self.inodes,
            link: None,
            followed: 0,
            left: BTreeSet::new(),
        };
        way.walk(path, effort, limits)?;
        let path = way.path().into_iter().map(Into::into).collect();
        let Way { link: Some(link), left, .. } = way else { return Ok(None) };
        for path in left {
            let bytes = path.len() + LEFT_OVERHEAD;
            if self.left.insert(path) {
                effort.left_bytes += bytes;
            }
        }
        if effort.left_bytes > MAX_LEFT_BYTES {
            let problem = "symlinks of this layer lead by `..` out of too many directories that \
                           no entry describes"
                .to_owned();
            return Err(EntryProblem::Symlink { link, problem });
        }
        Ok(Some(Followed { path, link }))
    }
}

impl Directory {
    /// Whether something that is not a directory is on the way to `path`, or at it.
    fn has_leaf_on(&self, path: &[&[u8]]) -> bool {
        let mut at = self;
        for part in path {
            match at.children.get(*part).and_then(|child| child.what.as_ref()) {
                Some(What::Directory(directory)) => at = directory,
                Some(What::Inode(_) | What::LowerLink(_)) => return true,
                None => return false,
            }
        }
        false
    }
}

/// The state of following one path.
struct Way<'t> {
    /// Below the root.
    places: Vec<Place<'t>>,
    root: &'t Directory,
    inodes: &'t [Inode],
    link: Option<String>,
    followed: usize,
    /// Paths that `..` led out of and that may be symlinks below.
    left: BTreeSet<Vec<u8>>,
}

impl<'t> Way<'t> {
    fn path(&self) -> Vec<&'t [u8]> {
        self.places.iter().map(|place| place.name).collect()
    }

    fn walk(
        &mut self,
        path: &[&'t [u8]],
        effort: &mut Effort,
        limits: &Limits,
    ) -> Result<(), EntryProblem> {
        let mut todo: VecDeque<&'t [u8]> = path.iter().copied().collect();
        while let Some(name) = todo.pop_front() {
            if self.link.is_some() {
                self.check(name, effort, limits)?;
            }
            if name == b".." {
                self.leave(effort);
                continue;
            }
            if let Some(target) = self.enter(name)? {
                self.followed += 1;
                if self.followed > MAX_SYMLINKS {
                    let many = format!("more than {MAX_SYMLINKS} symlinks follow each other");
                    return Err(self.problem(many));
                }
                if target.starts_with(b"/") {
                    self.places.clear();
                }
                for part in components(target).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(part);
                }
            }
        }
        Ok(())
    }

    /// What a path in an archive may not be, a way through a symlink may not be either.
    fn check(&self, name: &[u8], effort: &mut Effort, limits: &Limits) -> Result<(), EntryProblem> {
        effort.steps += 1;
        if effort.steps > MAX_STEPS {
            return Err(self.problem(format!(
                "the layer's symlinks and hardlinks take more than {MAX_STEPS} steps to follow"
            )));
        }
        if name == b".." {
            return Ok(());
        }
        if name.len() > NAME_MAX || meaning(name) != Meaning::Entry {
            return Err(self.problem(format!("`{}` on its way cannot be a name", Printable(name))));
        }
        let limit =
            |what, name, limit: usize| Err(EntryProblem::Limit { what, name, limit: limit as u64 });
        // An entry lies below what is found, so one level is left for it.
        let depth = limits.depth.min(DEPTH_MAX);
        if self.places.len() + 1 >= depth {
            return limit("chain of directories through symlinks", "depth", depth);
        }
        let bytes = self.places.last().map_or(0, |place| place.path_bytes);
        if bytes + name.len() + 1 > limits.path_bytes {
            return limit("path through symlinks", "path_bytes", limits.path_bytes);
        }
        Ok(())
    }

    fn leave(&mut self, effort: &mut Effort) {
        // The root is its own parent.
        let Some(place) = self.places.last() else { return };
        if !place.certain {
            // What is written down has to be paid for.
            effort.steps += self.places.len() as u64;
            self.left.insert(join(&self.path()));
        }
        self.places.pop();
    }

    /// Goes to `name`, or says where the symlink leads that is there.
    fn enter(&mut self, name: &'t [u8]) -> Result<Option<&'t [u8]>, EntryProblem> {
        let (at, cut, above) = match self.places.last() {
            Some(place) => (place.directory, place.cut, place.path_bytes),
            None => (Some(self.root), self.root.opaque, 0),
        };
        let path_bytes = above + name.len() + 1;
        let child = at.and_then(|directory| directory.children.get(name));
        let cut = cut || child.is_some_and(|child| child.hides_lower);
        let place = match child.and_then(|child| child.what.as_ref()) {
            None => Place { name, path_bytes, directory: None, certain: cut, cut },
            Some(What::Directory(directory)) => Place {
                name,
                path_bytes,
                directory: Some(directory),
                certain: cut || directory.attributes.is_some(),
                cut: cut || directory.opaque,
            },
            Some(What::Inode(id)) if let InodeKind::Symlink(target) = &self.inodes[*id].kind => {
                let mut path = self.path();
                path.push(name);
                self.link.get_or_insert_with(|| Printable(&join(&path)).to_string());
                return Ok(Some(target));
            }
            Some(What::Inode(_) | What::LowerLink(_)) => {
                let mut path = self.path();
                path.push(name);
                let path = Printable(&join(&path)).to_string();
                return Err(match &self.link {
                    None => EntryProblem::BelowNonDirectory(path),
                    Some(_) => self
                        .problem(format!("`{path}` on its way is not a directory in this layer")),
                });
            }
        };
        self.places.push(place);
        Ok(None)
    }

    fn problem(&self, problem: String) -> EntryProblem {
        EntryProblem::Symlink { link: self.link.clone().unwrap_or_default(), problem }
    }
}
