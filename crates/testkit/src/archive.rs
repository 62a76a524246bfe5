//! Compressed forms of bytes.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// One gzip member, the same for the same bytes.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a Vec takes all bytes");
    encoder.finish().expect("a Vec takes all bytes")
}

/// Several gzip members one after the other, as parallel compressors write them.
pub fn gzip_members(bytes: &[u8], members: usize) -> Vec<u8> {
    let size = bytes.len().div_ceil(members.max(1)).max(1);
    bytes.chunks(size).flat_map(gzip).collect()
}

/// One zstd frame.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("a Vec takes all bytes")
}
