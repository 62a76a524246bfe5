//! Random layers full of symlinks on layers below, beside a plain extraction of one after the other.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kiln_layer::{EntryKind, Index, LayerError, Limits, read_layer, write_index};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::archive::{Archive, Indexed, index};

/// What is at a name, and whether the layer that is extracted put it there.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Dir(BTreeMap<String, Node>, bool),
    /// Files are told apart by their size.
    File(u64, bool),
    Link(String, bool),
}

impl Node {
    fn dir() -> Self {
        Self::Dir(BTreeMap::new(), true)
    }

    /// Removes what is not of this layer, as a whiteout does; says whether nothing is left.
    fn prune(&mut self) -> bool {
        match self {
            Self::Dir(children, own) => {
                children.retain(|_, child| !child.prune());
                !*own && children.is_empty()
            }
            Self::File(_, own) | Self::Link(_, own) => !*own,
        }
    }

    fn set_own(&mut self, to: bool) {
        match self {
            Self::Dir(children, own) => {
                *own = to;
                for child in children.values_mut() {
                    child.set_own(to);
                }
            }
            Self::File(_, own) | Self::Link(_, own) => *own = to,
        }
    }
}

/// An entry of an archive.
#[derive(Clone, Debug)]
enum Op {
    File(String),
    Dir(String),
    Link(String, String),
    Hard(String, String),
    White(String),
    Opaque(String),
}

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"))
}

fn target() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c", "d", "..", "."]);
    (prop::sample::select(vec!["", "/"]), prop::collection::vec(part, 1..4))
        .prop_map(|(start, parts)| format!("{start}{}", parts.join("/")))
}

fn below() -> impl Strategy<Value = Op> {
    prop_oneof![path().prop_map(Op::File), path().prop_map(Op::Dir)]
}

fn above() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => path().prop_map(Op::File),
        2 => path().prop_map(Op::Dir),
        4 => (path(), target()).prop_map(|(path, target)| Op::Link(path, target)),
        1 => (path(), path()).prop_map(|(path, target)| Op::Hard(path, target)),
        1 => path().prop_map(Op::White),
        1 => path().prop_map(Op::Opaque),
    ]
}

/// `files`: how many there are so far, which is the size of the last.
fn archive(ops: &[Op], files: &mut usize) -> Vec<u8> {
    let mut archive = Archive::new().dir("./");
    for op in ops {
        archive = match op {
            Op::File(path) => {
                *files += 1;
                archive.file(path, &vec![1; *files])
            }
            Op::Dir(path) => archive.dir(&format!("{path}/")),
            Op::Link(path, target) => archive.symlink(path, target),
            Op::Hard(path, target) => archive.hardlink(path, target),
            Op::White(path) => {
                let (dir, name) = path.rsplit_once('/').unwrap_or((".", path));
                archive.file(&format!("{dir}/.wh.{name}"), b"")
            }
            Op::Opaque(path) => archive.file(&format!("{path}/.wh..wh..opq"), b""),
        };
    }
    archive.end()
}

/// A root that archives are extracted into.
struct Plain {
    root: Node,
}

impl Plain {
    fn at(&self, path: &[String]) -> Option<&Node> {
        path.iter().try_fold(&self.root, |node, part| match node {
            Node::Dir(children, _) => children.get(part),
            _ => None,
        })
    }

    /// A directory without symlinks on its way, made if it is not there.
    fn dir(&mut self, path: &[String]) -> &mut BTreeMap<String, Node> {
        let mut node = &mut self.root;
        for part in path {
            let Node::Dir(children, own) = node else { unreachable!("it is resolved") };
            *own = true;
            node = children.entry(part.clone()).or_insert_with(Node::dir);
        }
        let Node::Dir(children, own) = node else { unreachable!("it is resolved") };
        *own = true;
        children
    }

    /// Where the directory `path` is, as containerd finds it.
    fn resolve(&self, path: &str) -> Option<Vec<String>> {
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut places: Vec<String> = Vec::new();
        let mut followed = 0;
        while let Some(part) = todo.pop() {
            match &part[..] {
                "" | "." => continue,
                ".." => {
                    places.pop();
                    continue;
                }
                _ => places.push(part),
            }
            match self.at(&places) {
                None | Some(Node::Dir(..)) => {}
                Some(Node::File(..)) => return None,
                Some(Node::Link(target, _)) => {
                    followed += 1;
                    if followed > 40 {
                        return None;
                    }
                    places.pop();
                    if target.starts_with('/') {
                        places.clear();
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
            }
        }
        Some(places)
    }

    /// `None`: it cannot be extracted.
    fn apply(&mut self, ops: &[Op], files: &mut u64) -> Option<()> {
        for op in ops {
            let (path, node) = match op {
                Op::File(path) => {
                    *files += 1;
                    (path, Some(Node::File(*files, true)))
                }
                Op::Dir(path) => (path, Some(Node::dir())),
                Op::Link(path, target) => (path, Some(Node::Link(target.clone(), true))),
                Op::Hard(path, target) => {
                    let (dir, name) = target.rsplit_once('/').unwrap_or(("", target));
                    let mut at = self.resolve(dir)?;
                    at.push(name.to_owned());
                    match self.at(&at)? {
                        Node::Dir(..) => return None,
                        node => {
                            let mut node = node.clone();
                            node.set_own(true);
                            (path, Some(node))
                        }
                    }
                }
                Op::White(path) => (path, None),
                Op::Opaque(path) => {
                    let at = self.resolve(path)?;
                    self.dir(&at).retain(|_, child| !child.prune());
                    continue;
                }
            };
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            let at = self.resolve(dir)?;
            let children = self.dir(&at);
            match (children.get_mut(name), node) {
                (Some(Node::Dir(_, own)), Some(Node::Dir(..))) => *own = true,
                (_, Some(node)) => drop(children.insert(name.to_owned(), node)),
                (Some(child), None) => {
                    if child.prune() {
                        children.remove(name);
                    }
                }
                (None, None) => {}
            }
        }
        Some(())
    }
}

/// What overlayfs shows of an index on what is below.
fn overlay(below: Node, index: &Index) -> Node {
    let mut plain = Plain { root: below };
    let mut entries: Vec<(String, EntryKind, u64, bool)> = index
        .walk()
        .map(|found| {
            let (path, entry) = found.unwrap();
            let opaque = entry.xattrs.iter().any(|x| x.name == b"trusted.overlay.opaque");
            (path.to_str().unwrap().to_owned(), entry.kind, entry.size, opaque)
        })
        .collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, kind, size, opaque) in entries {
        if path.is_empty() {
            continue;
        }
        let parts: Vec<String> = path.split('/').map(str::to_owned).collect();
        let (name, dir) = parts.split_last().unwrap();
        let children = plain.dir(dir);
        match kind {
            EntryKind::Directory => match children.get_mut(name) {
                Some(Node::Dir(inside, _)) if opaque => inside.clear(),
                Some(Node::Dir(..)) => {}
                _ => drop(children.insert(name.clone(), Node::dir())),
            },
            EntryKind::File(_) => drop(children.insert(name.clone(), Node::File(size, true))),
            EntryKind::Symlink(target) => {
                let target = String::from_utf8(target).unwrap();
                children.insert(name.clone(), Node::Link(target, true));
            }
            EntryKind::Whiteout => drop(children.remove(name)),
            _ => unreachable!("there are none"),
        }
    }
    plain.root
}

fn try_index(tar: &[u8], parents: &[&Indexed]) -> Result<Vec<u8>, LayerError> {
    let layer = read_layer(tar, std::io::sink(), &Limits::default())?;
    let parents: Vec<Index> = parents.iter().map(|parent| parent.index()).collect();
    let mut out = std::io::Cursor::new(Vec::new());
    write_index(&layer.tree, layer.diff_id, layer.tar_size, &parents, &mut out)?;
    Ok(out.into_inner())
}

#[test]
fn a_layer_is_what_extracting_it_gives() {
    let cases = 2000;
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let below = prop::collection::vec(below(), 0..6);
    let above = prop::collection::vec(above(), 1..8);
    let (same, refused) = (RefCell::new(0), RefCell::new(0));
    let result = runner.run(&(below, above), |(below, above)| {
        let (mut files, mut extracted) = (0, 0);
        let mut plain = Plain { root: Node::dir() };
        let base = archive(&below, &mut files);
        if try_index(&base, &[]).is_err() || plain.apply(&below, &mut extracted).is_none() {
            return Ok(());
        }
        let base = index(base);
        let shown = overlay(Node::dir(), &base.index());
        prop_assert_eq!(&shown, &plain.root);
        plain.root.set_own(false);
        let whole = plain.apply(&above, &mut extracted);
        plain.root.set_own(true);
        match (try_index(&archive(&above, &mut files), &[&base]), whole) {
            (Ok(bytes), Some(())) => {
                let top = Index::from_bytes(bytes, "top").unwrap();
                prop_assert_eq!(overlay(shown, &top), plain.root);
                *same.borrow_mut() += 1;
            }
            (Err(_), Some(())) => *refused.borrow_mut() += 1,
            // What is replaced later is not always looked at.
            (_, None) => {}
        }
        Ok(())
    });
    result.unwrap();
    let (same, refused) = (same.into_inner(), refused.into_inner());
    assert!(same > cases / 3 && refused * 50 < same, "{same} the same, {refused} refused");
}
