//! What an archive means: every path with what it is.

use std::collections::BTreeMap;

/// All paths; the root is the empty one, every other one starts with `/`.
pub(super) type Listing = BTreeMap<Vec<u8>, Node>;

/// What is at a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// As the first letter of `ls -l`, with `f` for files.
    pub(super) kind: char,
    /// `None` for directories that no entry describes.
    pub(super) attributes: Option<Attributes>,
    /// SHA-256 of a file's data.
    pub(super) content: Option<String>,
    pub(super) size: u64,
    /// Of a symlink.
    pub(super) target: Option<Vec<u8>>,
    /// Of a device.
    pub(super) device: Option<(u64, u64)>,
    /// The first path of the same inode.
    pub(super) same: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: f64,
    /// Those of users only.
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// How exactly two listings are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exactness {
    /// Attributes of directories that `ours` says are described; the others have none anywhere.
    pub(super) symlink_times: bool,
}

/// The first difference.
pub(super) fn difference(ours: &Listing, theirs: &Listing, exact: Exactness) -> Option<String> {
    for (path, node) in ours {
        let shown = path.escape_ascii();
        let Some(other) = theirs.get(path) else {
            return Some(format!("`{shown}` is only in ours: {node:?}"));
        };
        let same = node.kind == other.kind
            && node.content == other.content
            && (node.kind != 'f' || node.size == other.size)
            && node.target == other.target
            && node.device == other.device
            && (node.kind == 'd' || node.same == other.same)
            && attributes_agree(node, other, exact);
        if !same {
            return Some(format!("`{shown}`: ours {node:?}, theirs {other:?}"));
        }
    }
    let more = theirs.iter().find(|(path, _)| !ours.contains_key(*path));
    more.map(|(path, node)| format!("`{}` is only in theirs: {node:?}", path.escape_ascii()))
}

fn attributes_agree(ours: &Node, theirs: &Node, exact: Exactness) -> bool {
    let (Some(a), Some(b)) = (&ours.attributes, &theirs.attributes) else { return true };
    let times = ours.kind == 'l' && !exact.symlink_times || (a.mtime - b.mtime).abs() < 1e-5;
    // The mode of a symlink means nothing.
    let modes = ours.kind == 'l' || a.mode == b.mode;
    // Only files and directories have attributes of users.
    let xattrs = !matches!(ours.kind, 'f' | 'd') || a.xattrs == b.xattrs;
    times && modes && xattrs && (a.uid, a.gid) == (b.uid, b.gid)
}
