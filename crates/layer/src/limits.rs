//! How much a layer may ask for.

/// Caps on what one layer may contain. The defaults are far above any honest layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Members of the archive and directories that they imply; extension headers are not counted.
    pub entries: u64,
    /// Bytes of all names, link targets and xattrs together.
    pub metadata_bytes: u64,
    /// Bytes of one normalised path.
    pub path_bytes: usize,
    /// Components of one path; more than 2048 are never accepted.
    pub depth: usize,
    /// Bytes of one symlink's target.
    pub symlink_bytes: usize,
    /// Bytes of all xattr names and values of one entry.
    pub xattr_bytes: usize,
    /// Bytes of one PAX extended header.
    pub pax_bytes: u64,
    /// Bytes of the uncompressed tar. The index addresses at most 2 TiB.
    pub tar_bytes: u64,
    /// Bytes that come out of the decompressor for one byte that goes in. The most that gzip can do is 1032.
    pub inflate_ratio: u64,
    /// Output up to which the ratio is not looked at.
    pub inflate_free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            metadata_bytes: 512 << 20,
            path_bytes: 4096,
            depth: 256,
            symlink_bytes: 4095,
            xattr_bytes: 128 << 10,
            pax_bytes: 1 << 20,
            tar_bytes: 1 << 40,
            inflate_ratio: 250,
            inflate_free_bytes: 1 << 30,
        }
    }
}
