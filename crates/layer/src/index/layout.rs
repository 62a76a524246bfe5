//! Where every inode of an index goes.

use super::plan::{LeafKind, Node, Plan};
use super::write::{directory_xattrs, names, tail_size};
use crate::attributes::Xattr;
use crate::erofs::inode::{self, CHUNK_INDEX};
use crate::erofs::{BLOCK, INODE_SLOT, directory, superblock, xattr};
use crate::error::LayerError;

/// Inodes in the order in which they are stored: level by level, so that a directory's are neighbours.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) items: Vec<Item>,
    /// Of each item.
    pub(super) places: Vec<Place>,
    /// Where the blocks behind the inodes start.
    pub(super) data_start: u64,
    /// Of the whole index.
    pub(super) blocks: u32,
    item_of_directory: Vec<usize>,
    item_of_leaf: Vec<usize>,
    item_of_whiteout: usize,
}

/// An inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Directory(usize),
    Leaf(usize),
    /// All whiteouts share one.
    Whiteout,
}

/// What the layout decides about an inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// In the index, in bytes.
    pub(super) offset: u64,
    pub(super) layout: inode::Layout,
    pub(super) xattr_count: u16,
    pub(super) nlink: u32,
}

/// What an inode needs.
struct Need {
    layout: inode::Layout,
    xattrs: usize,
    /// Bytes of data that could follow the inode, if they and the inode fit one block.
    data: u64,
    /// Bytes of chunk indexes.
    chunks: u64,
    nlink: u32,
}

/// No item.
const NONE: usize = usize::MAX;

impl Layout {
    pub(super) fn new(plan: &Plan<'_>) -> Result<Self, LayerError> {
        let mut layout = Self {
            items: Vec::new(),
            places: Vec::new(),
            data_start: 0,
            blocks: 0,
            item_of_directory: vec![NONE; plan.directories.len()],
            item_of_leaf: vec![NONE; plan.leaves.len()],
            item_of_whiteout: NONE,
        };
        let links = layout.order(plan);
        layout.place(plan, &links)?;
        Ok(layout)
    }

    pub(super) fn root_nid(&self) -> u16 {
        u16::try_from(self.nid(0)).expect("checked when it was placed")
    }

    pub(super) fn nid_of_directory(&self, at: usize) -> u64 {
        self.nid(self.item_of_directory[at])
    }

    pub(super) fn nid_of_leaf(&self, leaf: usize) -> u64 {
        self.nid(self.item_of_leaf[leaf])
    }

    pub(super) fn nid_of_whiteout(&self) -> u64 {
        self.nid(self.item_of_whiteout)
    }

    fn nid(&self, item: usize) -> u64 {
        self.places[item].offset / INODE_SLOT
    }

    /// Lists what can be reached. Returns how often each item is named, `.` and `..` included.
    fn order(&mut self, plan: &Plan<'_>) -> Vec<u32> {
        let mut links: Vec<u32> = vec![2];
        self.items.push(Item::Directory(0));
        self.item_of_directory[0] = 0;
        let mut next = 0;
        while let Some(item) = self.items.get(next).copied() {
            let parent = next;
            next += 1;
            let Item::Directory(at) = item else { continue };
            for child in plan.directories[at].children.values() {
                let (slot, item) = match child.node {
                    Node::Directory(at) => (&mut self.item_of_directory[at], Item::Directory(at)),
                    Node::Leaf(leaf) => (&mut self.item_of_leaf[leaf], Item::Leaf(leaf)),
                    Node::Whiteout => (&mut self.item_of_whiteout, Item::Whiteout),
                };
                if *slot == NONE {
                    *slot = self.items.len();
                    self.items.push(item);
                    links.push(0);
                }
                match item {
                    Item::Directory(_) => {
                        links[*slot] = 2;
                        links[parent] += 1;
                    }
                    Item::Leaf(_) | Item::Whiteout => links[*slot] += 1,
                }
            }
        }
        links
    }

    fn place(&mut self, plan: &Plan<'_>, links: &[u32]) -> Result<(), LayerError> {
        let mut offset = superblock::head_size(plan.tars.len());
        if plan.tars.len() >= usize::from(u16::MAX) || offset / INODE_SLOT > u64::from(u16::MAX) {
            return Err(LayerError::Unrepresentable {
                entry: "/".to_owned(),
                problem: format!("hardlinks lead into {} tars below", plan.tars.len() - 1),
            });
        }
        let mut data_blocks = 0;
        for (item, nlink) in self.items.iter().zip(links) {
            let mut need = need(plan, *item, *nlink)?;
            let fixed = inode::SIZE + need.xattrs as u64;
            let inline = tail_size(need.data);
            if inline > 0 && fixed + inline <= BLOCK {
                need.layout = inode::Layout::Inline { start_block: data_blocks };
                data_blocks += ((need.data - inline) / BLOCK) as u32;
            } else if need.data > 0 {
                need.layout = inode::Layout::Plain { start_block: data_blocks };
                data_blocks += need.data.div_ceil(BLOCK) as u32;
            }
            let size = match need.layout {
                inode::Layout::Inline { .. } => fixed + inline,
                inode::Layout::Chunks { .. } => fixed.next_multiple_of(CHUNK_INDEX) + need.chunks,
                inode::Layout::Plain { .. } | inode::Layout::Device(_) => fixed,
            };
            // Neither an inode's fixed part nor one with data behind it may cross a block boundary.
            let together = match need.layout {
                inode::Layout::Inline { .. } => size,
                _ => inode::SIZE,
            };
            if offset % BLOCK + together > BLOCK {
                offset = offset.next_multiple_of(BLOCK);
            }
            let xattr_count = xattr::count(need.xattrs).expect("encoded_size checked it");
            self.places.push(Place { offset, layout: need.layout, xattr_count, nlink: need.nlink });
            offset = (offset + size).next_multiple_of(INODE_SLOT);
        }
        self.data_start = offset.next_multiple_of(BLOCK);
        let first = self.data_start / BLOCK;
        let blocks = u32::try_from(first + u64::from(data_blocks));
        self.blocks = blocks.map_err(|_| LayerError::Unrepresentable {
            entry: "/".to_owned(),
            problem: "the index would be larger than 2 TiB".to_owned(),
        })?;
        for place in &mut self.places {
            if let inode::Layout::Inline { start_block } | inode::Layout::Plain { start_block } =
                &mut place.layout
            {
                *start_block += first as u32;
            }
        }
        Ok(())
    }
}

fn need(plan: &Plan<'_>, item: Item, nlink: u32) -> Result<Need, LayerError> {
    let plain = inode::Layout::Plain { start_block: 0 };
    let base = Need { layout: plain, xattrs: 0, data: 0, chunks: 0, nlink };
    match item {
        Item::Directory(at) => {
            let directory = &plan.directories[at];
            let xattrs = xattr_size(&directory_xattrs(directory))?;
            Ok(Need { xattrs, data: directory::encoded_size(names(directory)), ..base })
        }
        Item::Whiteout => Ok(Need { layout: inode::Layout::Device(0), ..base }),
        Item::Leaf(leaf) => {
            let leaf = &plan.leaves[leaf];
            let base = Need { xattrs: xattr_size(&leaf.attributes.xattrs)?, ..base };
            Ok(match &leaf.kind {
                LeafKind::File { size: 0, .. } => base,
                LeafKind::File { tar, offset, size } => {
                    check_extent(plan, *tar, *offset, *size)?;
                    let bits = inode::chunk_bits(*size);
                    let chunks = size.div_ceil(1 << bits) * CHUNK_INDEX;
                    Need { layout: inode::Layout::Chunks { bits }, chunks, ..base }
                }
                LeafKind::Symlink(target) => Need { data: target.len() as u64, ..base },
                LeafKind::CharDevice { major, minor } | LeafKind::BlockDevice { major, minor } => {
                    let number = inode::encode_device(*major, *minor);
                    Need { layout: inode::Layout::Device(number), ..base }
                }
                LeafKind::Fifo => Need { layout: inode::Layout::Device(0), ..base },
            })
        }
    }
}

fn check_extent(plan: &Plan<'_>, tar: usize, offset: u64, size: u64) -> Result<(), LayerError> {
    let (name, blocks) = plan.tars[tar];
    let end = offset.checked_add(size);
    if offset.is_multiple_of(BLOCK) && end.is_some_and(|end| end <= u64::from(blocks) * BLOCK) {
        return Ok(());
    }
    Err(LayerError::Unrepresentable {
        entry: format!("bytes {offset} to {offset}+{size} of {name}"),
        problem: format!("the tar was said to have {blocks} blocks of 512 bytes"),
    })
}

fn xattr_size(xattrs: &[Xattr]) -> Result<usize, LayerError> {
    xattr::encoded_size(xattrs).ok_or_else(|| LayerError::Unrepresentable {
        entry: "an entry's xattrs".to_owned(),
        problem: "together they are larger than 256 KiB, the most that an inode can have"
            .to_owned(),
    })
}
