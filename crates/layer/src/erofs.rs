//! The part of the EROFS on-disk format that indexes use (Linux `fs/erofs/erofs_fs.h`), as bytes.
//!
//! Little-endian throughout. One writer and one reader share these definitions; neither knows of layers.

pub(crate) mod crc32c;
pub(crate) mod directory;
pub(crate) mod inode;
pub(crate) mod superblock;
pub(crate) mod xattr;

/// Bytes of a block: the unit of a tar, so that every file of one starts at a block.
pub(crate) const BLOCK: u64 = 1 << BLOCK_BITS;
/// Binary logarithm of [`BLOCK`].
pub(crate) const BLOCK_BITS: u8 = 9;
/// Inodes start at multiples of this, and are numbered by it.
pub(crate) const INODE_SLOT: u64 = 32;

/// Something in an index that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) String);

impl Damage {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// The `N` bytes at `offset`.
pub(crate) fn bytes_at<const N: usize>(data: &[u8], offset: usize) -> Result<[u8; N], Damage> {
    let end = offset.checked_add(N);
    end.and_then(|end| data.get(offset..end))
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Damage::new(format!("it ends before byte {offset} plus {N}")))
}

pub(crate) fn u16_at(data: &[u8], offset: usize) -> Result<u16, Damage> {
    bytes_at(data, offset).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(data: &[u8], offset: usize) -> Result<u32, Damage> {
    bytes_at(data, offset).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(data: &[u8], offset: usize) -> Result<u64, Damage> {
    bytes_at(data, offset).map(u64::from_le_bytes)
}
