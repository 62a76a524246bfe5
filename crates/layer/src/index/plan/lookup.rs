//! Finds paths in what is seen when the plan lies on the layers below, symlinks followed within the root.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::{LeafKind, Node, Planner};
use crate::error::LayerError;
use crate::index::lower::{LowerDirectory, LowerEntry};
use crate::index::reader::EntryKind;
use crate::name::{MAX_STEPS, MAX_SYMLINKS, NAME_MAX, Printable, components, join};
use crate::tree::{Meaning, meaning};

/// A directory on the way to a path.
#[derive(Clone)]
pub(super) struct Place<'t> {
    pub(super) name: Cow<'t, [u8]>,
    /// Its number in the plan, if it is there.
    pub(super) plan: Option<usize>,
    /// Its visible part in the layers below. Without both, nothing is there yet.
    pub(super) lower: Option<LowerDirectory>,
}

enum Step<'t> {
    Directory(Place<'t>),
    Symlink(Vec<u8>),
    Other,
}

impl<'t> Planner<'t, '_> {
    /// The places from the root to a directory of the plan.
    pub(super) fn places_of(&self, directory: usize) -> Vec<Place<'t>> {
        let mut places = Vec::new();
        let mut at = directory;
        loop {
            let directory = &self.plan.directories[at];
            let lower = self.visible_lower(at).cloned();
            places.push(Place { name: directory.name.clone(), plan: Some(at), lower });
            if at == 0 {
                break;
            }
            at = directory.parent;
        }
        places.reverse();
        places
    }

    /// Follows `path` from the last of `places`. What does not exist is taken for a directory to be made.
    pub(super) fn resolve(
        &mut self,
        mut places: Vec<Place<'t>>,
        path: &[u8],
    ) -> Result<Vec<Place<'t>>, String> {
        let mut todo: VecDeque<Vec<u8>> = VecDeque::new();
        let follow = |places: &mut Vec<Place<'t>>, todo: &mut VecDeque<Vec<u8>>, path: &[u8]| {
            if path.starts_with(b"/") {
                places.truncate(1);
            }
            for part in components(path).collect::<Vec<_>>().into_iter().rev() {
                todo.push_front(part.to_vec());
            }
        };
        follow(&mut places, &mut todo, path);
        let mut followed = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                // The root is its own parent.
                places.truncate((places.len() - 1).max(1));
                continue;
            }
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(format!(
                    "the layer's symlinks and hardlinks take more than {MAX_STEPS} steps to follow"
                ));
            }
            let place = places.last().expect("the root is always there");
            match self.step(place, &name)? {
                Step::Directory(place) => places.push(place),
                Step::Symlink(target) => {
                    followed += 1;
                    if followed > MAX_SYMLINKS {
                        return Err(format!("more than {MAX_SYMLINKS} symlinks follow each other"));
                    }
                    follow(&mut places, &mut todo, &target);
                }
                Step::Other => {
                    return Err(format!("`{}` on its way is not a directory", Printable(&name)));
                }
            }
        }
        Ok(places)
    }

    /// Whether `..` out of the paths that the layer's own symlinks leave that way leads where it seemed to lead
    /// before the layers below were known.
    pub(super) fn check_left(&mut self) -> Result<(), LayerError> {
        for path in &self.tree.left {
            let entry = || Printable(path).to_string();
            let place = |problem| LayerError::Placement { entry: entry(), problem };
            let mut parts: Vec<&[u8]> = components(path).collect();
            let Some(name) = parts.pop() else { continue };
            let root = self.places_of(0);
            let places = self.resolve(root, &join(&parts)).map_err(place)?;
            let parent = places.last().expect("the root is always there");
            if let Step::Symlink(target) = self.step(parent, name).map_err(place)? {
                return Err(place(format!(
                    "a symlink of this layer leads through it and back by `..`, but it is a symlink \
                     to `{}` itself",
                    Printable(&target)
                )));
            }
        }
        Ok(())
    }

    fn step(&self, place: &Place<'t>, name: &[u8]) -> Result<Step<'t>, String> {
        // Targets of symlinks name what entries may not.
        if name.len() > NAME_MAX || name.contains(&0) || meaning(name) != Meaning::Entry {
            return Err(format!("`{}` on its way cannot be a name", Printable(name)));
        }
        let nothing =
            || Step::Directory(Place { name: Cow::Owned(name.to_vec()), plan: None, lower: None });
        let planned = place.plan.and_then(|at| self.plan.directories[at].children.get(name));
        match planned.map(|child| child.node) {
            Some(Node::Directory(at)) => {
                let lower = self.visible_lower(at).cloned();
                let name = self.plan.directories[at].name.clone();
                return Ok(Step::Directory(Place { name, plan: Some(at), lower }));
            }
            Some(Node::Leaf(leaf)) => {
                return Ok(match &self.plan.leaves[leaf].kind {
                    LeafKind::Symlink(target) => Step::Symlink(target.to_vec()),
                    _ => Step::Other,
                });
            }
            Some(Node::Whiteout) => return Ok(nothing()),
            None => {}
        }
        let Some(lower) = &place.lower else { return Ok(nothing()) };
        Ok(match self.lower.child(lower, name).map_err(|error| error.to_string())? {
            None => nothing(),
            Some(LowerEntry::Directory(directory)) => Step::Directory(Place {
                name: Cow::Owned(name.to_vec()),
                plan: None,
                lower: Some(directory),
            }),
            Some(LowerEntry::Other(_, entry)) => match entry.kind {
                EntryKind::Symlink(target) => Step::Symlink(target),
                _ => Step::Other,
            },
        })
    }
}
