//! The reader under test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt as _;

use kiln_layer::{
    DevicePolicy, EntryKind, EntryProblem, Index, IndexOptions, LayerError, Limits, read_layer,
    write_index_with,
};
use sha2::{Digest as _, Sha256};

use super::listing::{Attributes, Listing, Node};

/// What the archive means, or why it is refused: a key of the table of known differences, and the message.
pub(super) fn read(tar: &[u8]) -> Result<Listing, (&'static str, String)> {
    let layer = read_layer(tar, std::io::sink(), &Limits::default()).map_err(refusal)?;
    let mut index = Cursor::new(Vec::new());
    let options = IndexOptions { devices: DevicePolicy::Keep };
    let (tree, id, size) = (&layer.tree, layer.diff_id, layer.tar_size);
    write_index_with(tree, id, size, &[], &options, &mut index).map_err(refusal)?;
    let index = Index::from_bytes(index.into_inner(), "test").expect("our own index opens");
    let mut listing = Listing::new();
    let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for found in index.walk() {
        let (path, entry) = found.expect("our own index is whole");
        let mut name = path.as_os_str().as_bytes().to_vec();
        if !name.is_empty() {
            name.insert(0, b'/');
        }
        let mut node = Node {
            kind: 'f',
            attributes: Some(Attributes {
                mode: entry.mode,
                uid: entry.uid.into(),
                gid: entry.gid.into(),
                mtime: entry.mtime.secs as f64 + f64::from(entry.mtime.nanos) / 1e9,
                xattrs: entry
                    .xattrs
                    .iter()
                    .filter(|xattr| xattr.name.starts_with(b"user."))
                    .map(|xattr| (xattr.name.clone(), xattr.value.clone()))
                    .collect(),
            }),
            content: None,
            size: entry.size,
            target: None,
            device: None,
            same: Vec::new(),
        };
        match entry.kind {
            EntryKind::File(extents) => {
                let mut hash = Sha256::new();
                for extent in extents {
                    let (start, end) = (extent.offset, extent.offset + extent.len);
                    hash.update(&tar[start as usize..end as usize]);
                }
                node.content = Some(hex(&hash.finalize()));
            }
            EntryKind::Directory => node.kind = 'd',
            EntryKind::Symlink(target) => (node.kind, node.target) = ('l', Some(target)),
            EntryKind::CharDevice { major, minor } => {
                (node.kind, node.device) = ('c', Some((major.into(), minor.into())));
            }
            EntryKind::BlockDevice { major, minor } => {
                (node.kind, node.device) = ('b', Some((major.into(), minor.into())));
            }
            EntryKind::Fifo => node.kind = 'p',
            EntryKind::Whiteout => continue,
        }
        if node.kind != 'd' {
            let same = first.entry(entry.ino).or_insert_with(|| name.clone());
            if name < *same {
                same.clone_from(&name);
            }
        }
        node.same = entry.ino.to_be_bytes().to_vec();
        listing.insert(name, node);
    }
    for node in listing.values_mut().filter(|node| node.kind != 'd') {
        let inode = u64::from_be_bytes(node.same[..].try_into().expect("it was put there"));
        node.same.clone_from(&first[&inode]);
    }
    Ok(listing)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn refusal(error: LayerError) -> (&'static str, String) {
    let key = match &error {
        LayerError::Entry { problem, .. } => match problem {
            EntryProblem::Truncated => "truncated",
            EntryProblem::Checksum => "checksum",
            EntryProblem::Number { .. } => "number",
            EntryProblem::Type(_) => "type",
            EntryProblem::Sparse => "sparse",
            EntryProblem::Extension(_) => "extension",
            EntryProblem::DanglingExtension => "dangling extension",
            EntryProblem::GlobalOverride(_) => "global override",
            EntryProblem::LoneZeroBlock => "lone zero block",
            EntryProblem::UnexpectedData(_) => "unexpected data",
            EntryProblem::ParentComponent => "dot-dot",
            EntryProblem::Path(_) => "path",
            EntryProblem::BelowNonDirectory(_) => "below a non-directory",
            EntryProblem::Symlink { .. } => "below a symlink",
            EntryProblem::Link { .. } => "link",
            EntryProblem::Xattr { .. } => "xattr",
            EntryProblem::Whiteout => "whiteout",
            EntryProblem::Limit { .. } => "limit",
            _ => "other",
        },
        LayerError::Placement { .. } => "link",
        LayerError::Limit { .. } | LayerError::Unrepresentable { .. } => "limit",
        LayerError::NotAnArchive(_) => "not an archive",
        _ => "other",
    };
    (key, error.to_string())
}
