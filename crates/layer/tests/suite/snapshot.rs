//! A file tree as a value, so that two can be compared whatever they come from.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use kiln_layer::{EntryKind, Index};
use kiln_types::Digest;

use crate::archive::Indexed;

/// Path (without a slash in front; the root is empty) → node.
pub(crate) type Tree = BTreeMap<Vec<u8>, Node>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) nlink: u64,
    /// The first path of the same inode.
    pub(crate) first: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Digest),
    Directory,
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Whiteout,
}

/// The tree below a directory of the host.
pub(crate) fn of_directory(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut inodes = HashMap::new();
    visit(root, Vec::new(), &mut tree, &mut inodes);
    tree
}

fn visit(root: &Path, path: Vec<u8>, tree: &mut Tree, inodes: &mut HashMap<(u64, u64), Vec<u8>>) {
    let full = if path.is_empty() { root.join(".") } else { root.join(OsStr::from_bytes(&path)) };
    let meta = std::fs::symlink_metadata(&full).unwrap();
    let kind = meta.file_type();
    let device = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let node_kind = if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Symlink(std::fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec())
    } else if kind.is_char_device() && device == (0, 0) {
        Kind::Whiteout
    } else if kind.is_char_device() {
        Kind::Char(device.0, device.1)
    } else if kind.is_block_device() {
        Kind::Block(device.0, device.1)
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        Kind::File(Digest::of(std::fs::read(&full).unwrap()))
    };
    let mut names: Vec<Vec<u8>> = if kind.is_dir() {
        let entries = std::fs::read_dir(&full).unwrap();
        entries.map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect()
    } else {
        Vec::new()
    };
    names.sort();
    let first = if kind.is_dir() {
        path.clone()
    } else {
        inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone()).clone()
    };
    let node = Node {
        kind: node_kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: (meta.mtime(), meta.mtime_nsec() as u32),
        nlink: meta.nlink(),
        first,
        xattrs: xattrs(&full),
    };
    tree.insert(path.clone(), node);
    for name in names {
        let child = if path.is_empty() { name } else { [&path[..], b"/", &name].concat() };
        visit(root, child, tree, inodes);
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    let len = match rustix::fs::llistxattr(path, &mut buffer) {
        Ok(len) => len,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let names: Vec<Vec<u8>> = buffer[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    names
        .into_iter()
        .map(|name| {
            let mut value = vec![0; 65_536];
            let len = rustix::fs::lgetxattr(path, &name[..], &mut value).unwrap();
            value.truncate(len);
            (name, value)
        })
        .collect()
}

/// A file with this content.
pub(crate) fn text(content: &str) -> Kind {
    Kind::File(Digest::of(content))
}

/// The tree of `top` alone, file data taken from its own tar and its parents'.
pub(crate) fn shown(top: &Indexed, parents: &[&Indexed]) -> Tree {
    let all = parents.iter().copied().chain([top]);
    let tars: HashMap<String, Vec<u8>> =
        all.map(|indexed| (indexed.layer.diff_id.hex(), indexed.tar.clone())).collect();
    of_index(&top.index(), &tars)
}

/// The tree that an index shows, file data taken from `tars` (by hex diffID).
pub(crate) fn of_index(index: &Index, tars: &HashMap<String, Vec<u8>>) -> Tree {
    let mut inodes = HashMap::new();
    let mut tree = Tree::new();
    for entry in index.walk() {
        let (path, entry) = entry.unwrap();
        let path = path.as_os_str().as_bytes().to_vec();
        let kind = match entry.kind {
            EntryKind::File(extents) => {
                let mut data = Vec::new();
                for extent in &extents {
                    let range = extent.offset as usize..(extent.offset + extent.len) as usize;
                    data.extend_from_slice(&tars[&extent.tar.hex()][range]);
                }
                assert_eq!(data.len() as u64, entry.size);
                Kind::File(Digest::of(data))
            }
            EntryKind::Directory => Kind::Directory,
            EntryKind::Symlink(target) => Kind::Symlink(target),
            EntryKind::CharDevice { major, minor } => Kind::Char(major, minor),
            EntryKind::BlockDevice { major, minor } => Kind::Block(major, minor),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::Whiteout => Kind::Whiteout,
        };
        let first = if kind == Kind::Directory {
            path.clone()
        } else {
            inodes.entry(entry.ino).or_insert_with(|| path.clone()).clone()
        };
        let node = Node {
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: (entry.mtime.secs, entry.mtime.nanos),
            nlink: entry.nlink.into(),
            first,
            xattrs: entry.xattrs.into_iter().map(|x| (x.name, x.value)).collect(),
        };
        tree.insert(path, node);
    }
    tree
}

/// Fails with the first few differences.
#[track_caller]
pub(crate) fn assert_same(left: &Tree, right: &Tree) {
    let mut differences = Vec::new();
    for path in left.keys().chain(right.keys().filter(|path| !left.contains_key(*path))) {
        let (a, b) = (left.get(path), right.get(path));
        if a != b {
            differences.push(format!("{}:\n  {a:?}\n  {b:?}", String::from_utf8_lossy(path)));
        }
    }
    let count = differences.len();
    differences.truncate(8);
    assert!(differences.is_empty(), "{count} differences:\n{}", differences.join("\n"));
}
