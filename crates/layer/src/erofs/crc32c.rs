//! CRC-32C as EROFS uses it for superblocks: seeded with all ones, not inverted at the end.

/// The checksum of `data`.
pub(crate) fn crc32c(data: &[u8]) -> u32 {
    data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_polynomial() {
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }
}
