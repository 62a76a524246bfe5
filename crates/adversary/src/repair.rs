//! Gives damaged input the checksums that its bytes should have, so that what lies behind them is reached.

use crate::archive::seal;

/// Positions of what a reader takes for headers when it believes every size, the checksums apart.
pub fn tar_headers(tar: &[u8]) -> Vec<usize> {
    let mut headers = Vec::new();
    let mut at = 0_usize;
    while let Some(block) = tar.get(at..).and_then(|rest| rest.get(..512)) {
        if block.iter().all(|byte| *byte == 0) {
            at += 512;
            continue;
        }
        headers.push(at);
        let size = size(block).filter(|_| !matches!(block[156], b'1'..=b'6'));
        let padded = size.unwrap_or(0).checked_next_multiple_of(512);
        let Some(next) = padded.and_then(|size| at.checked_add(512)?.checked_add(size)) else {
            break;
        };
        at = next;
    }
    headers
}

fn size(block: &[u8]) -> Option<usize> {
    let field = &block[124..136];
    if field[0] & 0x80 != 0 {
        return field[4..].iter().try_fold(0_usize, |size, byte| {
            size.checked_mul(256)?.checked_add(usize::from(*byte))
        });
    }
    let digits = field.iter().skip_while(|byte| **byte == b' ');
    let digits = digits.take_while(|byte| (b'0'..=b'7').contains(*byte));
    Some(digits.fold(0, |size, digit| size * 8 + usize::from(digit - b'0')))
}

/// The same tar with right checksums in all its headers; `None` if they are right already.
pub fn tar_checksums(tar: &[u8]) -> Option<Vec<u8>> {
    let mut repaired = tar.to_vec();
    for at in tar_headers(tar) {
        seal(&mut repaired[at..at + 512]);
    }
    (repaired != tar).then_some(repaired)
}

/// The same index with the block count and the superblock checksum of its bytes, cut to whole blocks.
pub(crate) fn index_head(index: &[u8]) -> Option<Vec<u8>> {
    let mut repaired = index.to_vec();
    repaired.truncate(index.len() / 512 * 512);
    if repaired.len() < 1536 {
        return None;
    }
    let blocks = u32::try_from(repaired.len() / 512).ok()?;
    repaired[1024 + 36..1024 + 40].copy_from_slice(&blocks.to_le_bytes());
    repaired[1024 + 4..1024 + 8].fill(0);
    let sum = crc32c(&repaired[1024..1536]);
    repaired[1024 + 4..1024 + 8].copy_from_slice(&sum.to_le_bytes());
    (repaired != index).then_some(repaired)
}

/// CRC-32C, seeded with ones, not inverted (`docs/formats/layer.md`, "Superblock").
fn crc32c(data: &[u8]) -> u32 {
    data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}
