//! Where the parts of a file system are that it writes at fixed places.
//!
//! Read from its own structures, as the kernel's documentation of ext4 has them ("Super Block", "Block
//! Group Descriptors", "Extent Tree"). The numbers of what was just made by [`super::template`] are
//! trusted no further than that: what is not as expected is an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const BLOCK: u64 = 4096;
const INODE: u64 = 256;
/// The inode of the journal.
const JOURNAL: u64 = 8;

/// Bytes of an image that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) place: u64,
    pub(super) length: u64,
}

/// The journal, and what lies before the inodes: superblock, descriptors and bitmaps of all groups.
pub(super) fn fixed(file: &File) -> io::Result<Vec<Extent>> {
    let mut descriptor = [0; 64];
    file.read_exact_at(&mut descriptor, BLOCK)?;
    let inodes = u64::from(u32_at(&descriptor, 0x28)) << 32 | u64::from(u32_at(&descriptor, 0x8));
    if !(1..1 << 20).contains(&inodes) {
        return Err(unexpected("the table of inodes is at an odd place"));
    }
    let mut inode = [0; INODE as usize];
    file.read_exact_at(&mut inode, inodes * BLOCK + (JOURNAL - 1) * INODE)?;
    let tree = &inode[0x28..0x64];
    let (magic, count, depth) = (u16_at(tree, 0), u16_at(tree, 2), u16_at(tree, 6));
    if magic != 0xF30A || depth != 0 || !(1..=4).contains(&count) {
        return Err(unexpected("the journal is in too many pieces"));
    }
    let mut found = vec![Extent { place: 0, length: inodes * BLOCK }];
    for entry in tree[12..].chunks_exact(12).take(count.into()) {
        let start = u64::from(u16_at(entry, 6)) << 32 | u64::from(u32_at(entry, 8));
        found.push(Extent { place: start * BLOCK, length: u64::from(u16_at(entry, 4)) * BLOCK });
    }
    Ok(found)
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn u16_at(bytes: &[u8], place: usize) -> u16 {
    u16::from_le_bytes([bytes[place], bytes[place + 1]])
}

fn u32_at(bytes: &[u8], place: usize) -> u32 {
    u32::from(u16_at(bytes, place)) | u32::from(u16_at(bytes, place + 2)) << 16
}
