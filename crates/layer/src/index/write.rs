//! Plan → bytes. First every inode gets its place, then all is written in that order.

use std::borrow::Cow;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use sha2::{Digest as _, Sha256};

use super::IndexInfo;
use super::layout::{Item, Layout};
use super::plan::{LeafKind, Node, Plan, PlanDirectory};
use crate::attributes::{Attributes, Mtime, Xattr};
use crate::erofs::directory::{self, Entry, FileType};
use crate::erofs::inode::{
    self, CHUNK_INDEX, RawInode, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG,
};
use crate::erofs::superblock::Superblock;
use crate::erofs::{BLOCK, INODE_SLOT, xattr};
use crate::error::LayerError;

/// Separates the UUID's hash from every other use of the same bytes.
const UUID_DOMAIN: &[u8] = b"kiln layer index 1\n";

/// Writes `plan` from the start of `out`.
pub(super) fn write(plan: Plan<'_>, out: impl Write + Seek) -> Result<IndexInfo, LayerError> {
    let layer = plan.tars[0].0;
    let layout = Layout::new(&plan)?;
    let superblock = Superblock {
        root_nid: layout.root_nid(),
        inodes: layout.items.len() as u64,
        blocks: layout.blocks,
        uuid: [0; 16],
        devices: plan.tars.clone(),
    };
    Writer { plan: &plan, layout: &layout, data: Vec::new() }
        .write(superblock, out)
        .map_err(|source| LayerError::WriteIndex { layer, source })?;
    Ok(IndexInfo {
        devices: plan.tars.iter().map(|(tar, _)| *tar).collect(),
        inodes: layout.items.len() as u64,
        size: u64::from(layout.blocks) * BLOCK,
        dropped: plan.dropped,
    })
}

struct Writer<'w, 't> {
    plan: &'w Plan<'t>,
    layout: &'w Layout,
    /// The blocks behind the inodes.
    data: Vec<u8>,
}

impl Writer<'_, '_> {
    fn write(mut self, mut superblock: Superblock, mut out: impl Write + Seek) -> io::Result<()> {
        // The head holds the UUID, which depends on everything else.
        out.seek(SeekFrom::Start(0))?;
        let hash = self.write_body(&superblock.encode(false), &mut out)?;
        superblock.uuid = uuid(&hash.finalize());
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&superblock.encode(true))?;
        out.flush()
    }

    /// Writes the unfinished head and all behind it; returns the hash of that.
    fn write_body(&mut self, head: &[u8], out: impl Write) -> io::Result<Sha256> {
        let mut hash = Sha256::new();
        hash.update(UUID_DOMAIN);
        let inner = BufWriter::with_capacity(64 << 10, out);
        let mut body = Hashing { inner, hash, position: 0 };
        body.write_all(head)?;
        let mut record = Vec::new();
        for number in 0..self.layout.items.len() {
            body.pad_to(self.layout.places[number].offset)?;
            record.clear();
            self.encode(number, &mut record);
            body.write_all(&record)?;
        }
        body.pad_to(self.layout.data_start)?;
        body.write_all(&self.data)?;
        body.pad_to(u64::from(self.layout.blocks) * BLOCK)?;
        body.inner.flush()?;
        Ok(body.hash)
    }

    fn encode(&mut self, number: usize, out: &mut Vec<u8>) {
        match self.layout.items[number] {
            Item::Directory(at) => self.encode_directory(number, at, out),
            Item::Leaf(leaf) => self.encode_leaf(number, leaf, out),
            Item::Whiteout => {
                let attributes = whiteout();
                let raw = self.raw(number, S_IFCHR, &attributes, 0);
                raw.encode(out);
            }
        }
    }

    fn encode_directory(&mut self, number: usize, at: usize, out: &mut Vec<u8>) {
        let directory = &self.plan.directories[at];
        let xattrs = directory_xattrs(directory);
        let mut entries = Vec::with_capacity(directory.children.len() + 2);
        entries.extend(names(directory).map(|name| {
            let (nid, file_type) = match name {
                b"." => (self.layout.nid_of_directory(at), FileType::Directory),
                b".." => (self.layout.nid_of_directory(directory.parent), FileType::Directory),
                name => self.target(directory.children[name].node),
            };
            Entry { name, nid, file_type }
        }));
        let mut blocks = Vec::new();
        directory::encode(&entries, &mut blocks);
        let raw = self.raw(number, S_IFDIR, &directory.attributes, blocks.len() as u64);
        raw.encode(out);
        xattr::encode(&xattrs, out);
        self.append_data(&raw, &blocks, out);
    }

    fn target(&self, node: Node) -> (u64, FileType) {
        match node {
            Node::Directory(at) => (self.layout.nid_of_directory(at), FileType::Directory),
            Node::Whiteout => (self.layout.nid_of_whiteout(), FileType::CharDevice),
            Node::Leaf(leaf) => {
                let file_type = match self.plan.leaves[leaf].kind {
                    LeafKind::File { .. } => FileType::File,
                    LeafKind::Symlink(_) => FileType::Symlink,
                    LeafKind::CharDevice { .. } => FileType::CharDevice,
                    LeafKind::BlockDevice { .. } => FileType::BlockDevice,
                    LeafKind::Fifo => FileType::Fifo,
                };
                (self.layout.nid_of_leaf(leaf), file_type)
            }
        }
    }

    fn encode_leaf(&mut self, number: usize, leaf: usize, out: &mut Vec<u8>) {
        let leaf = &self.plan.leaves[leaf];
        let (file_type, size) = match &leaf.kind {
            LeafKind::File { size, .. } => (S_IFREG, *size),
            LeafKind::Symlink(target) => (S_IFLNK, target.len() as u64),
            LeafKind::CharDevice { .. } => (S_IFCHR, 0),
            LeafKind::BlockDevice { .. } => (S_IFBLK, 0),
            LeafKind::Fifo => (S_IFIFO, 0),
        };
        let raw = self.raw(number, file_type, &leaf.attributes, size);
        let start = out.len();
        raw.encode(out);
        xattr::encode(&leaf.attributes.xattrs, out);
        match &leaf.kind {
            LeafKind::Symlink(target) => self.append_data(&raw, target, out),
            LeafKind::File { tar, offset, size } if *size > 0 => {
                out.resize(start + (out.len() - start).next_multiple_of(CHUNK_INDEX as usize), 0);
                let bits = inode::chunk_bits(*size);
                for chunk in 0..size.div_ceil(1 << bits) {
                    let block = (offset + (chunk << bits)) / BLOCK;
                    // Extra devices are counted from 1.
                    out.extend_from_slice(&[0; 2]);
                    out.extend_from_slice(&(*tar as u16 + 1).to_le_bytes());
                    out.extend_from_slice(&(block as u32).to_le_bytes());
                }
            }
            _ => {}
        }
    }

    fn raw(&self, number: usize, file_type: u32, attributes: &Attributes, size: u64) -> RawInode {
        let place = &self.layout.places[number];
        RawInode {
            layout: place.layout,
            xattr_count: place.xattr_count,
            mode: file_type | attributes.mode,
            size,
            ino: number as u32 + 1,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: attributes.mtime,
            nlink: place.nlink,
        }
    }

    /// Puts data behind the inode, into whole blocks, or into both, as its layout says.
    fn append_data(&mut self, raw: &RawInode, data: &[u8], out: &mut Vec<u8>) {
        let inline = match raw.layout {
            inode::Layout::Inline { .. } => data.len() - tail_size(data.len() as u64) as usize,
            _ => data.len(),
        };
        let (blocks, tail) = data.split_at(inline);
        self.data.extend_from_slice(blocks);
        self.data.resize(self.data.len().next_multiple_of(BLOCK as usize), 0);
        out.extend_from_slice(tail);
    }
}

/// What of `size` bytes goes behind the inode: the last block, full or not.
pub(super) fn tail_size(size: u64) -> u64 {
    if size == 0 { 0 } else { (size - 1) % BLOCK + 1 }
}

/// The names of a directory as they are stored: `.` and `..` sorted among them.
pub(super) fn names<'d>(directory: &'d PlanDirectory<'_>) -> impl Iterator<Item = &'d [u8]> {
    let mut children = directory.children.keys().map(|name| &name[..]).peekable();
    let mut dots = [&b"."[..], b".."].into_iter().peekable();
    std::iter::from_fn(move || match (children.peek(), dots.peek()) {
        (Some(child), Some(dot)) if child < dot => children.next(),
        (_, Some(_)) => dots.next(),
        (_, None) => children.next(),
    })
}

/// The xattrs of a directory with the marks for overlayfs.
pub(super) fn directory_xattrs<'d>(directory: &'d PlanDirectory<'_>) -> Cow<'d, [Xattr]> {
    let own = &directory.attributes.xattrs;
    let whiteouts = directory.children.values().any(|child| child.node == Node::Whiteout);
    if !directory.opaque && !whiteouts {
        return Cow::Borrowed(own);
    }
    let mut xattrs = own.clone();
    let mut mark = |name: &[u8], value: &[u8]| {
        xattrs.push(Xattr { name: name.to_vec(), value: value.to_vec() });
    };
    if directory.opaque {
        mark(super::lower::OPAQUE, b"y");
    }
    if whiteouts {
        // Without it, a directory that no other layer has is listed as it is, whiteouts included.
        mark(b"trusted.overlay.origin", b"");
    }
    xattrs.sort();
    Cow::Owned(xattrs)
}

fn whiteout() -> Attributes {
    Attributes { mode: 0, uid: 0, gid: 0, mtime: Mtime::default(), xattrs: Vec::new() }
}

/// A version 8 UUID (RFC 9562) of a hash.
fn uuid(hash: &[u8]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&hash[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
    position: u64,
}

impl<W: Write> Hashing<W> {
    fn pad_to(&mut self, position: u64) -> io::Result<()> {
        let zeros = [0; BLOCK as usize];
        while self.position < position {
            let count = (position - self.position).min(BLOCK);
            self.write_all(&zeros[..count as usize])?;
        }
        debug_assert_eq!(self.position, position, "records end before the next one starts");
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.position += bytes.len() as u64;
        self.inner.write_all(bytes)
    }
}

const _: () = assert!(inode::SIZE.is_multiple_of(INODE_SLOT));
