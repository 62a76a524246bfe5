//! Random archives with the tree that extracting them gives, worked out independently.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::Digest;
use proptest::prelude::*;
use tar::EntryType;

use crate::archive::{Archive, header};
use crate::snapshot::{Kind, Node, Tree};

/// One member of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) path: Vec<u8>,
    pub(crate) content: Content,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Use GNU headers where they can say it.
    pub(crate) gnu: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    File(Vec<u8>),
    Dir,
    Symlink(Vec<u8>),
    /// To one of the non-directories that exist by then.
    Hardlink(prop::sample::Index),
    Fifo,
    Char(u32, u32),
    Block(u32, u32),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "c", "!", "-x", "name with space", "\u{fc}n\u{ef}"])
            .prop_map(|name| name.as_bytes().to_vec()),
        1 => Just(vec![b'l'; 255]),
        1 => Just(b"\xff\xfe\x80".to_vec()),
        1 => "[a-z]{1,60}".prop_map(String::into_bytes),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        5 => prop::collection::vec(any::<u8>(), 0..2000).prop_map(Content::File),
        5 => Just(Content::Dir),
        2 => prop_oneof!["[a-z./]{1,30}", "[a-z]{90,600}"]
            .prop_map(|target| Content::Symlink(target.into_bytes())),
        3 => any::<prop::sample::Index>().prop_map(Content::Hardlink),
        1 => Just(Content::Fifo),
        1 => (1..0x1000_u32, 0..0x10_0000_u32).prop_map(|(a, b)| Content::Char(a, b)),
        1 => (0..0x1000_u32, 0..0x10_0000_u32).prop_map(|(a, b)| Content::Block(a, b)),
    ]
}

fn xattrs() -> impl Strategy<Value = BTreeMap<Vec<u8>, Vec<u8>>> {
    let name = prop::sample::select(vec!["user.a", "user.b=c%d", "user.\u{fc}"])
        .prop_map(|name| name.as_bytes().to_vec());
    let value = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![2 => Just(BTreeMap::new()), 1 => prop::collection::btree_map(name, value, 0..3)]
}

fn op() -> impl Strategy<Value = Op> {
    let path = prop::collection::vec(name(), 1..4).prop_map(|parts| parts.join(&b'/'));
    let id = prop_oneof![Just(0_u32), 1..70_000_u32, Just(u32::MAX - 1)];
    let time = (prop_oneof![0..2_000_000_000_i64, Just(-5), Just(1 << 33)], 0..1_000_000_000_u32);
    let time = prop_oneof![time.clone(), time.prop_map(|(secs, _)| (secs, 0))];
    (path, content(), 0..0o10_000_u32, id.clone(), id, time, xattrs(), any::<bool>()).prop_map(
        |(path, content, mode, uid, gid, mtime, xattrs, gnu)| Op {
            path,
            content,
            mode,
            uid,
            gid,
            mtime,
            xattrs,
            gnu,
        },
    )
}

pub(crate) fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..40)
}

/// The mark of a directory that hides what the layers below have in it.
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// What is asked of an archive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// All that the rules of a layer define.
    Any,
    /// Only what GNU tar extracts alike: no directory with content becomes something else, none is
    /// described twice with xattrs, and xattrs are where Linux allows them.
    Extractable,
}

/// An archive and the tree it stands for.
pub(crate) struct Model {
    flavor: Flavor,
    archive: Archive,
    tree: Tree,
    inodes: usize,
    /// The inode of each non-directory.
    inode: BTreeMap<Vec<u8>, usize>,
    /// Directories in the place of something else, which shows nothing of the layers below.
    opaque: BTreeSet<Vec<u8>>,
}

impl Model {
    /// Takes the members that make sense, in order.
    pub(crate) fn new(ops: &[Op], flavor: Flavor) -> Self {
        let mut model = Self {
            flavor,
            archive: Archive::new(),
            tree: Tree::new(),
            inodes: 0,
            inode: BTreeMap::new(),
            opaque: BTreeSet::new(),
        };
        model.tree.insert(Vec::new(), implied());
        for op in ops {
            model.apply(op);
        }
        model
    }

    pub(crate) fn finish(self) -> (Vec<u8>, Tree) {
        let mut tree = self.tree;
        let mut first: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let mut links: BTreeMap<usize, u64> = BTreeMap::new();
        for (path, inode) in walk_order(&self.inode) {
            first.entry(*inode).or_insert_with(|| path.clone());
            *links.entry(*inode).or_default() += 1;
        }
        let directories: Vec<Vec<u8>> = tree
            .iter()
            .filter(|(_, n)| n.kind == Kind::Directory)
            .map(|(p, _)| p.clone())
            .collect();
        for (path, node) in &mut tree {
            if let Some(inode) = self.inode.get(path) {
                node.first.clone_from(&first[inode]);
                node.nlink = links[inode];
            } else {
                if self.opaque.contains(path) {
                    node.xattrs.insert(OPAQUE.to_vec(), b"y".to_vec());
                }
                node.first.clone_from(path);
                let children =
                    directories.iter().filter(|dir| !dir.is_empty() && parent(dir) == &path[..]);
                node.nlink = 2 + children.count() as u64;
            }
        }
        (self.archive.end(), tree)
    }

    fn apply(&mut self, op: &Op) {
        let mut ancestors = Vec::new();
        let mut at = parent(&op.path);
        while !at.is_empty() {
            ancestors.push(at);
            at = parent(at);
        }
        let is_dir = |path: &[u8]| self.tree.get(path).is_none_or(|n| n.kind == Kind::Directory);
        if !ancestors.iter().all(|path| is_dir(path)) {
            return;
        }
        let prefix = [&op.path[..], b"/"].concat();
        let existing = self.tree.get(&op.path);
        let has_children = self.tree.keys().any(|path| path.starts_with(&prefix));
        let mut xattrs = op.xattrs.clone();
        if self.flavor == Flavor::Extractable {
            if !matches!(op.content, Content::Dir) && has_children {
                return;
            }
            if !matches!(op.content, Content::Dir | Content::File(_)) {
                xattrs.clear();
            }
            if matches!(op.content, Content::Dir) && existing.is_some_and(|n| !n.xattrs.is_empty())
            {
                return;
            }
        }
        let link = match &op.content {
            Content::Hardlink(_) if self.inode.is_empty() => return,
            Content::Hardlink(index) => {
                let target = self.inode.keys().nth(index.index(self.inode.len())).unwrap().clone();
                if target == op.path || target.starts_with(&prefix) {
                    return;
                }
                Some(target)
            }
            _ => None,
        };
        self.append(op, &xattrs, link.as_deref());
        for path in ancestors {
            self.tree.entry(path.to_vec()).or_insert_with(implied);
        }
        if matches!(op.content, Content::Dir) {
            if self.inode.contains_key(&op.path) {
                self.opaque.insert(op.path.clone());
            }
        } else {
            self.opaque.retain(|path| !path.starts_with(&prefix));
            self.tree.retain(|path, _| !path.starts_with(&prefix));
            self.inode.retain(|path, _| !path.starts_with(&prefix));
        }
        if let Some(target) = link {
            let (node, inode) = match (self.tree.get(&target), self.inode.get(&target)) {
                (Some(node), Some(inode)) => (node.clone(), *inode),
                _ => unreachable!("targets below the link's own path are not chosen"),
            };
            self.tree.insert(op.path.clone(), node);
            self.inode.insert(op.path.clone(), inode);
            return;
        }
        let kind = match &op.content {
            Content::File(data) => Kind::File(Digest::of(data)),
            Content::Dir => Kind::Directory,
            Content::Symlink(target) => Kind::Symlink(target.clone()),
            Content::Fifo => Kind::Fifo,
            Content::Char(major, minor) => Kind::Char(*major, *minor),
            Content::Block(major, minor) => Kind::Block(*major, *minor),
            Content::Hardlink(_) => unreachable!("handled above"),
        };
        self.inode.remove(&op.path);
        if kind != Kind::Directory {
            self.inode.insert(op.path.clone(), self.inodes);
            self.inodes += 1;
        }
        let node = Node {
            // Linux shows symlinks with all permissions, whatever was asked for.
            mode: if self.flavor == Flavor::Extractable && matches!(kind, Kind::Symlink(_)) {
                0o777
            } else {
                op.mode
            },
            kind,
            uid: op.uid,
            gid: op.gid,
            mtime: op.mtime,
            nlink: 0,
            first: Vec::new(),
            xattrs,
        };
        self.tree.insert(op.path.clone(), node);
    }

    fn append(&mut self, op: &Op, xattrs: &BTreeMap<Vec<u8>, Vec<u8>>, link: Option<&[u8]>) {
        let (kind, data): (EntryType, &[u8]) = match &op.content {
            Content::File(data) => (EntryType::Regular, data),
            Content::Dir => (EntryType::Directory, b""),
            Content::Symlink(_) => (EntryType::Symlink, b""),
            Content::Hardlink(_) => (EntryType::Link, b""),
            Content::Fifo => (EntryType::Fifo, b""),
            Content::Char(..) => (EntryType::Char, b""),
            Content::Block(..) => (EntryType::Block, b""),
        };
        let target: &[u8] = match &op.content {
            Content::Symlink(target) => target,
            _ => link.unwrap_or_default(),
        };
        let mut header = header(kind, &op.path);
        let is_symlink = kind == EntryType::Symlink;
        let mode = if self.flavor == Flavor::Extractable && is_symlink { 0o777 } else { op.mode };
        header.set_mode(mode);
        header.as_old_mut().linkname[..target.len().min(100)]
            .copy_from_slice(&target[..target.len().min(100)]);
        if let Content::Char(major, minor) | Content::Block(major, minor) = op.content {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        }
        let mut archive = std::mem::take(&mut self.archive);
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut record = |key: &str, value: &[u8]| records.push((key.into(), value.to_vec()));
        if op.gnu {
            // Base-256 for what octal cannot hold.
            header.set_uid(op.uid.into());
            header.set_gid(op.gid.into());
        } else {
            record("uid", op.uid.to_string().as_bytes());
            record("gid", op.gid.to_string().as_bytes());
        }
        if let (Ok(secs), true, 0) = (u64::try_from(op.mtime.0), op.gnu, op.mtime.1) {
            header.set_mtime(secs);
        } else {
            record("mtime", pax_time(op.mtime).as_bytes());
        }
        for (key, name) in [("path", &op.path[..]), ("linkpath", target)] {
            if name.len() > 100 && op.gnu {
                archive = archive.gnu_long(if key == "path" { b'L' } else { b'K' }, name);
            } else if name.len() > 100 || !op.gnu && !name.is_empty() {
                record(key, name);
            }
        }
        for (name, value) in xattrs {
            let name = String::from_utf8_lossy(name).replace('%', "%25").replace('=', "%3D");
            record(&format!("SCHILY.xattr.{name}"), value);
        }
        if !records.is_empty() {
            let records: Vec<(&[u8], &[u8])> =
                records.iter().map(|(k, v)| (&k[..], &v[..])).collect();
            archive = archive.pax(&records);
        }
        self.archive = archive.entry(header, data);
    }
}

fn pax_time((secs, nanos): (i64, u32)) -> String {
    if secs >= 0 || nanos == 0 {
        return format!("{secs}.{nanos:09}");
    }
    format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos)
}

fn implied() -> Node {
    Node {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        nlink: 0,
        first: Vec::new(),
        xattrs: BTreeMap::new(),
    }
}

fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[..slash.unwrap_or(0)]
}

/// The order in which trees are walked: by component, not by byte of the path.
fn walk_order(inodes: &BTreeMap<Vec<u8>, usize>) -> Vec<(&Vec<u8>, &usize)> {
    let mut all: Vec<_> = inodes.iter().collect();
    all.sort_by_key(|(path, _)| path.split(|byte| *byte == b'/').collect::<Vec<_>>());
    all
}
