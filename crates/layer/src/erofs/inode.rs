//! Extended inodes (64 bytes) and what may follow them.

use super::{BLOCK_BITS, Damage, bytes_at, u16_at, u32_at, u64_at};
use crate::attributes::Mtime;

/// Bytes before xattrs.
pub(crate) const SIZE: u64 = 64;
/// Bytes of one chunk index.
pub(crate) const CHUNK_INDEX: u64 = 8;
/// Chunks are described by indexes that name a device, not by bare block numbers.
const CHUNK_FORMAT_INDEXES: u16 = 0x20;
const CHUNK_FORMAT_BITS: u16 = 0x1f;

pub(crate) const S_IFMT: u32 = 0o170_000;
pub(crate) const S_IFIFO: u32 = 0o010_000;
pub(crate) const S_IFCHR: u32 = 0o020_000;
pub(crate) const S_IFDIR: u32 = 0o040_000;
pub(crate) const S_IFBLK: u32 = 0o060_000;
pub(crate) const S_IFREG: u32 = 0o100_000;
pub(crate) const S_IFLNK: u32 = 0o120_000;

/// Where an inode's data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In whole blocks from this one.
    Plain { start_block: u32 },
    /// Like `Plain`, but what is left after the last full block follows the inode.
    Inline { start_block: u32 },
    /// In chunks of two to the power of `bits` bytes, each with an index that follows the inode.
    Chunks { bits: u8 },
    /// None: a device number.
    Device(u32),
}

/// The fixed part of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawInode {
    pub(crate) layout: Layout,
    pub(crate) xattr_count: u16,
    /// With the file type.
    pub(crate) mode: u32,
    pub(crate) size: u64,
    /// A number for 32-bit `stat` only.
    pub(crate) ino: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Mtime,
    pub(crate) nlink: u32,
}

impl RawInode {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (layout, value) = match self.layout {
            Layout::Plain { start_block } => (0, start_block),
            Layout::Device(number) => (0, number),
            Layout::Inline { start_block } => (2, start_block),
            Layout::Chunks { bits } => {
                (4, u32::from(CHUNK_FORMAT_INDEXES | u16::from(bits - BLOCK_BITS)))
            }
        };
        let format: u16 = 1 | layout << 1;
        out.extend_from_slice(&format.to_le_bytes());
        out.extend_from_slice(&self.xattr_count.to_le_bytes());
        out.extend_from_slice(&(self.mode as u16).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&value.to_le_bytes());
        out.extend_from_slice(&self.ino.to_le_bytes());
        out.extend_from_slice(&self.uid.to_le_bytes());
        out.extend_from_slice(&self.gid.to_le_bytes());
        out.extend_from_slice(&self.mtime.secs.to_le_bytes());
        out.extend_from_slice(&self.mtime.nanos.to_le_bytes());
        out.extend_from_slice(&self.nlink.to_le_bytes());
        out.extend_from_slice(&[0; 16]);
    }

    pub(crate) fn decode(data: &[u8], offset: usize) -> Result<Self, Damage> {
        let raw: [u8; SIZE as usize] = bytes_at(data, offset)?;
        let mode = u32::from(u16_at(&raw, 4)?);
        let value = u32_at(&raw, 16)?;
        let device = matches!(mode & S_IFMT, S_IFCHR | S_IFBLK | S_IFIFO);
        let layout = match (u16_at(&raw, 0)?, device) {
            (0b0001, true) => Layout::Device(value),
            (0b0001, false) => Layout::Plain { start_block: value },
            (0b0101, false) => Layout::Inline { start_block: value },
            (0b1001, false) if value as u16 & !CHUNK_FORMAT_BITS == CHUNK_FORMAT_INDEXES => {
                Layout::Chunks { bits: BLOCK_BITS + (value as u16 & CHUNK_FORMAT_BITS) as u8 }
            }
            (format, _) => {
                return Err(Damage::new(format!(
                    "the inode at byte {offset} has the unknown format {format:#x}"
                )));
            }
        };
        let mtime = Mtime { secs: u64_at(&raw, 32)? as i64, nanos: u32_at(&raw, 40)? };
        if mtime.nanos > 999_999_999 {
            return Err(Damage::new(format!("the inode at byte {offset} has no valid mtime")));
        }
        Ok(Self {
            layout,
            xattr_count: u16_at(&raw, 2)?,
            mode,
            size: u64_at(&raw, 8)?,
            ino: u32_at(&raw, 20)?,
            uid: u32_at(&raw, 24)?,
            gid: u32_at(&raw, 28)?,
            mtime,
            nlink: u32_at(&raw, 44)?,
        })
    }
}

/// The binary logarithm of the chunk size for a file: one chunk if the format allows.
pub(crate) fn chunk_bits(size: u64) -> u8 {
    let whole = size.max(1).next_power_of_two().trailing_zeros() as u8;
    whole.clamp(BLOCK_BITS, BLOCK_BITS + CHUNK_FORMAT_BITS as u8)
}

/// Linux's encoding of device numbers in 32 bits.
pub(crate) fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The reverse of [`encode_device`].
pub(crate) fn decode_device(number: u32) -> (u32, u32) {
    ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encode_and_decode() {
        let base = RawInode {
            layout: Layout::Chunks { bits: 40 },
            xattr_count: 9,
            mode: S_IFREG | 0o4755,
            size: 5 << 30,
            ino: 77,
            uid: 65_534,
            gid: u32::MAX - 1,
            mtime: Mtime { secs: -5, nanos: 999_999_999 },
            nlink: 70_000,
        };
        for inode in [
            base,
            RawInode { layout: Layout::Chunks { bits: 9 }, ..base },
            RawInode { layout: Layout::Plain { start_block: u32::MAX }, ..base },
            RawInode { layout: Layout::Inline { start_block: 3 }, mode: S_IFDIR, ..base },
            RawInode { layout: Layout::Device(0x1234), mode: S_IFCHR, ..base },
        ] {
            let mut raw = vec![0xff; 3];
            inode.encode(&mut raw);
            assert_eq!(raw.len() as u64, 3 + SIZE);
            assert_eq!(RawInode::decode(&raw, 3).unwrap(), inode);
        }
    }

    #[test]
    fn chunk_sizes() {
        for (size, bits) in [
            (1, 9),
            (512, 9),
            (513, 10),
            (1 << 20, 20),
            ((1 << 20) + 1, 21),
            (1 << 40, 40),
            (1 << 42, 40),
        ] {
            assert_eq!(chunk_bits(size), bits, "{size}");
        }
    }

    #[test]
    fn device_numbers() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (259, 256), (0xfff, 0xf_ffff)] {
            assert_eq!(decode_device(encode_device(major, minor)), (major, minor));
        }
    }
}
