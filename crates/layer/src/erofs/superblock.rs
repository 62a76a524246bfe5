//! The superblock and the device table behind it.

use kiln_types::{DiffId, Digest};

use super::crc32c::crc32c;
use super::{BLOCK, BLOCK_BITS, Damage, bytes_at, u16_at, u32_at, u64_at};

/// Where the superblock starts; what lies before it is left to boot loaders.
const OFFSET: usize = 1024;
const SIZE: usize = 128;
const SLOT_SIZE: usize = 128;
const MAGIC: u32 = 0xe0f5_e1e2;

/// `SB_CHKSUM | MTIME`: a checksum is present, and inodes carry mtimes (not ctimes).
const FEATURE_COMPAT: u32 = 0x1 | 0x2;
/// `CHUNKED_FILE | DEVICE_TABLE`.
const FEATURE_INCOMPAT: u32 = 0x4 | 0x8;

/// What differs from one index to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) root_nid: u16,
    pub(crate) inodes: u64,
    /// Of the index itself.
    pub(crate) blocks: u32,
    pub(crate) uuid: [u8; 16],
    /// The extra devices and their sizes in blocks; extents count them from 1.
    pub(crate) devices: Vec<(DiffId, u32)>,
}

/// Bytes before the first inode: everything up to the end of the device table, in whole blocks.
pub(crate) fn head_size(devices: usize) -> u64 {
    ((OFFSET + SIZE + devices * SLOT_SIZE) as u64).next_multiple_of(BLOCK)
}

impl Superblock {
    /// The head of the index, without checksum if the UUID is not known yet.
    pub(crate) fn encode(&self, checksum: bool) -> Vec<u8> {
        let mut head = vec![0; head_size(self.devices.len()) as usize];
        let mut put = |at: usize, bytes: &[u8]| {
            head[OFFSET + at..OFFSET + at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &MAGIC.to_le_bytes());
        put(8, &FEATURE_COMPAT.to_le_bytes());
        put(12, &[BLOCK_BITS]);
        put(14, &self.root_nid.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(48, &self.uuid);
        put(80, &FEATURE_INCOMPAT.to_le_bytes());
        let devices = u16::try_from(self.devices.len()).expect("the writer checks the number");
        put(86, &devices.to_le_bytes());
        put(88, &(((OFFSET + SIZE) / SLOT_SIZE) as u16).to_le_bytes());
        for (number, (tar, blocks)) in self.devices.iter().enumerate() {
            let slot = SIZE + number * SLOT_SIZE;
            put(slot, tar.hex().as_bytes());
            put(slot + 64, &blocks.to_le_bytes());
        }
        if checksum {
            let sum = crc32c(&head[OFFSET..OFFSET + BLOCK as usize]);
            head[OFFSET + 4..OFFSET + 8].copy_from_slice(&sum.to_le_bytes());
        }
        head
    }

    /// Reads and checks the head of an index.
    pub(crate) fn decode(data: &[u8]) -> Result<Self, Damage> {
        let block = data
            .get(OFFSET..OFFSET + BLOCK as usize)
            .ok_or_else(|| Damage::new("it is too short for a superblock"))?;
        let expect = |what: &str, found: u64, expected: u64| {
            if found == expected {
                return Ok(());
            }
            Err(Damage::new(format!("its {what} is {found:#x} and not {expected:#x}")))
        };
        expect("magic number", u32_at(block, 0)?.into(), MAGIC.into())?;
        let mut unsummed = block.to_vec();
        unsummed[4..8].fill(0);
        expect("superblock checksum", u32_at(block, 4)?.into(), crc32c(&unsummed).into())?;
        expect("set of compatible features", u32_at(block, 8)?.into(), FEATURE_COMPAT.into())?;
        expect("block size", block[12].into(), BLOCK_BITS.into())?;
        expect("metadata address", u32_at(block, 40)?.into(), 0)?;
        expect("set of features", u32_at(block, 80)?.into(), FEATURE_INCOMPAT.into())?;
        let blocks = u32_at(block, 36)?;
        expect("size", data.len() as u64, u64::from(blocks) * BLOCK)?;
        let table = usize::from(u16_at(block, 88)?) * SLOT_SIZE;
        let devices = (0..usize::from(u16_at(block, 86)?)).map(|number| {
            let slot = table + number * SLOT_SIZE;
            let mut hash = [0; 32];
            hex::decode_to_slice(bytes_at::<64>(data, slot)?, &mut hash)
                .map_err(|_| Damage::new(format!("the tag of device {number} is not a digest")))?;
            Ok((DiffId(Digest::from_sha256(hash)), u32_at(data, slot + 64)?))
        });
        Ok(Self {
            root_nid: u16_at(block, 14)?,
            inodes: u64_at(block, 16)?,
            blocks,
            uuid: bytes_at(block, 48)?,
            devices: devices.collect::<Result<_, Damage>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encode_and_decode() {
        for count in [1, 2, 3, 4, 50] {
            let devices = (0..count).map(|n: u32| (DiffId(Digest::of(n.to_le_bytes())), n * 3));
            let mut superblock = Superblock {
                root_nid: 48,
                inodes: 7,
                blocks: 0,
                uuid: *b"0123456789abcdef",
                devices: devices.collect(),
            };
            superblock.blocks = (head_size(count as usize) / BLOCK) as u32;
            let mut head = superblock.encode(true);
            assert_eq!(Superblock::decode(&head).unwrap(), superblock);
            head[OFFSET + 20] ^= 1;
            let damage = Superblock::decode(&head).unwrap_err();
            assert!(damage.0.contains("checksum"), "{damage:?}");
        }
    }
}
