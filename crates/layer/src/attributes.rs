//! What every inode has, whatever its kind.

/// A modification time: seconds since the epoch, rounded down, and nanoseconds above them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Seconds since 1970-01-01T00:00:00Z; negative before it.
    pub secs: i64,
    /// 0 to 999 999 999.
    pub nanos: u32,
}

/// Labels that the security modules of a host give to files by themselves: no part of their content.
pub const HOST_LABELS: [&[u8]; 5] = [
    b"security.SMACK64",
    b"security.apparmor",
    b"security.evm",
    b"security.ima",
    b"security.selinux",
];

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// The full name with its prefix (`user.mime_type`).
    pub name: Vec<u8>,
    /// The value, which may be empty.
    pub value: Vec<u8>,
}

impl Xattr {
    /// Whether an attribute of this name can come from an image: neither overlayfs's own nor a host's
    /// label, or one of its kind.
    pub fn is_of_image(name: &[u8]) -> bool {
        let of_host = HOST_LABELS.iter().any(|label| name.starts_with(label));
        !of_host && !name.starts_with(b"trusted.")
    }
}

/// Permissions, owner, time and extended attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The lower twelve bits of `st_mode`.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Mtime,
    /// Sorted by name, each name once.
    pub(crate) xattrs: Vec<Xattr>,
}

impl Attributes {
    /// What a directory gets that no layer describes.
    pub(crate) fn implied_directory() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Mtime::default(), xattrs: Vec::new() }
    }
}
