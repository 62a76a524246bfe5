//! Directory blocks: twelve bytes for each entry, then the names; entries sorted by name over all blocks.

use super::{BLOCK, Damage, u16_at, u64_at};

const ENTRY: usize = 12;

/// `EROFS_FT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileType {
    File = 1,
    Directory = 2,
    CharDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Symlink = 7,
}

/// One entry to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'n> {
    pub(crate) name: &'n [u8],
    pub(crate) nid: u64,
    pub(crate) file_type: FileType,
}

/// The size of a directory whose names, `.` and `..` included, come in order.
pub(crate) fn encoded_size<'n>(names: impl Iterator<Item = &'n [u8]>) -> u64 {
    let (mut full, mut used) = (0, 0);
    for name in names {
        let len = (ENTRY + name.len()) as u64;
        if used + len > BLOCK {
            full += 1;
            used = 0;
        }
        used += len;
    }
    full * BLOCK + used
}

/// Appends a directory, its last block not padded. Entries come in the order of [`encoded_size`].
pub(crate) fn encode(entries: &[Entry<'_>], out: &mut Vec<u8>) {
    let mut rest = entries;
    while !rest.is_empty() {
        let mut used = 0;
        let fit = rest
            .iter()
            .take_while(|entry| {
                used += ENTRY + entry.name.len();
                used <= BLOCK as usize
            })
            .count();
        let (block, later) = rest.split_at(fit);
        let start = out.len();
        let mut name_offset = block.len() * ENTRY;
        for entry in block {
            out.extend_from_slice(&entry.nid.to_le_bytes());
            out.extend_from_slice(&(name_offset as u16).to_le_bytes());
            out.extend_from_slice(&[entry.file_type as u8, 0]);
            name_offset += entry.name.len();
        }
        for entry in block {
            out.extend_from_slice(entry.name);
        }
        if !later.is_empty() {
            out.resize(start + BLOCK as usize, 0);
        }
        rest = later;
    }
}

/// Reads one block (or the unpadded last one): names and inode numbers.
pub(crate) fn decode(block: &[u8]) -> Result<Vec<(&[u8], u64)>, Damage> {
    let names = usize::from(u16_at(block, 8)?);
    if names == 0 || names % ENTRY != 0 || names > block.len() {
        return Err(Damage::new("a directory block has no valid first name"));
    }
    let count = names / ENTRY;
    let mut entries = Vec::with_capacity(count);
    for number in 0..count {
        let start = usize::from(u16_at(block, number * ENTRY + 8)?);
        let end = if number + 1 < count {
            usize::from(u16_at(block, (number + 1) * ENTRY + 8)?)
        } else {
            let tail = block.get(start..).unwrap_or_default();
            start + tail.iter().position(|byte| *byte == 0).unwrap_or(tail.len())
        };
        let name = block.get(start..end).filter(|name| {
            start >= names && !name.is_empty() && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
        });
        let name = name.ok_or_else(|| Damage::new("a directory entry has no valid name"))?;
        entries.push((name, u64_at(block, number * ENTRY)?));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encode_and_decode() {
        for (count, len) in [(1, 1), (2, 255), (40, 1), (39, 13), (3, 244), (1000, 20), (2, 500)] {
            let names: Vec<Vec<u8>> = (0..count)
                .map(|n: u32| {
                    let mut name = format!("{n:04}").into_bytes();
                    name.resize(len.max(4), b'x');
                    name
                })
                .collect();
            let entry = |name| Entry { name, nid: 3, file_type: FileType::Directory };
            let entries: Vec<Entry<'_>> = names.iter().map(|name| entry(name)).collect();
            let mut out = Vec::new();
            encode(&entries, &mut out);
            assert_eq!(encoded_size(names.iter().map(Vec::as_slice)), out.len() as u64);
            let read: Vec<&[u8]> = out
                .chunks(BLOCK as usize)
                .flat_map(|block| decode(block).unwrap())
                .map(|(name, _)| name)
                .collect();
            assert_eq!(read, names);
        }
    }
}
