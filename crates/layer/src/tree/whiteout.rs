//! Whiteout names as the OCI image specification ("Layer Filesystem Changeset") defines them.

/// What the last component of a path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// An ordinary name.
    Entry,
    /// `.wh.name`: hides `name` of the layers below.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: hides everything of the layers below in this directory.
    Opaque,
    /// Any other `.wh..wh.*`: bookkeeping of AUFS, without meaning for the tree.
    AufsMetadata,
    /// A whiteout of nothing, of `.` or of `..`.
    Nonsense,
}

const WHITEOUT: &[u8] = b".wh.";
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Reads one path component.
pub(crate) fn meaning(name: &[u8]) -> Meaning<'_> {
    if name == OPAQUE {
        return Meaning::Opaque;
    }
    if name.starts_with(AUFS) {
        return Meaning::AufsMetadata;
    }
    match name.strip_prefix(WHITEOUT) {
        None => Meaning::Entry,
        Some(b"" | b"." | b"..") => Meaning::Nonsense,
        Some(hidden) => Meaning::Whiteout(hidden),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_meaning() {
        for (name, expected) in [
            (&b"a"[..], Meaning::Entry),
            (b".wh", Meaning::Entry),
            (b"x.wh.y", Meaning::Entry),
            (b".wh.a", Meaning::Whiteout(b"a")),
            (b".wh..a", Meaning::Whiteout(b".a")),
            (b".wh..wh..opq", Meaning::Opaque),
            (b".wh..wh.plnk", Meaning::AufsMetadata),
            (b".wh..wh.", Meaning::AufsMetadata),
            (b".wh.", Meaning::Nonsense),
            (b".wh..", Meaning::Nonsense),
            (b".wh...", Meaning::Nonsense),
        ] {
            assert_eq!(meaning(name), expected, "{}", String::from_utf8_lossy(name));
        }
    }
}
