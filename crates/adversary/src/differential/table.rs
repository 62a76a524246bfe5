//! Where tools differ, and why. What is not in here must not differ.

/// An archive that this reader refuses and the other tool reads.
pub(super) struct Stricter {
    /// Key of the refusal; see `ours.rs`.
    pub(super) refusal: &'static str,
    pub(super) tool: Tool,
    pub(super) why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tool {
    Gnu,
    Python,
}

const fn stricter(refusal: &'static str, tool: Tool, why: &'static str) -> Stricter {
    Stricter { refusal, tool, why }
}

/// All that is known.
pub(super) const STRICTER: &[Stricter] = &[
    stricter(
        "checksum",
        Tool::Gnu,
        "bytes behind the end of the checksum's digits are passed over",
    ),
    stricter("checksum", Tool::Python, "the archive ends in silence at the first damaged header"),
    stricter("truncated", Tool::Gnu, "a piece of a header at the end is taken for padding"),
    stricter("truncated", Tool::Python, "a piece of a header at the end is taken for padding"),
    stricter("lone zero block", Tool::Gnu, "the archive ends there, with a warning"),
    stricter("lone zero block", Tool::Python, "the archive ends there"),
    stricter(
        "number",
        Tool::Gnu,
        "what is no number of its range is taken for another one, with a warning",
    ),
    stricter("number", Tool::Python, "the archive ends in silence at the first damaged header"),
    stricter("type", Tool::Gnu, "labels are passed over, unknown types are files"),
    stricter("type", Tool::Python, "labels are passed over, unknown types are files"),
    stricter("extension", Tool::Gnu, "of two headers of one kind the later counts"),
    stricter("extension", Tool::Python, "of two headers of one kind the later counts"),
    stricter("dangling extension", Tool::Gnu, "it is passed over"),
    stricter("dangling extension", Tool::Python, "the archive ends there"),
    stricter("global override", Tool::Gnu, "it is applied to every entry"),
    stricter("global override", Tool::Python, "it is applied to every entry"),
    stricter("unexpected data", Tool::Gnu, "the data are passed over"),
    stricter(
        "unexpected data",
        Tool::Python,
        "the size is passed over, and what follows is a header",
    ),
    stricter("sparse", Tool::Gnu, "sparse entries are supported"),
    stricter("sparse", Tool::Python, "records that are not complete are passed over"),
    stricter(
        "path",
        Tool::Gnu,
        "an empty name is the root; the data of directories are passed over",
    ),
    stricter("path", Tool::Python, "a file may end in a slash"),
    stricter("link", Tool::Python, "the target of a symlink may be empty"),
];

/// Why GNU tar makes something else of an archive with this feature, if it does.
pub(super) fn gnu_differs(feature: &str) -> Option<&'static str> {
    match feature {
        "directory replaced" => {
            Some("it does not replace a directory that holds something by anything else")
        }
        "symlink that leads out replaced" => {
            Some("it makes such symlinks at the end, and stumbles over what took their place")
        }
        "below a symlink that leads out" => {
            Some("it makes such symlinks at the end, so that nothing can lie below them before")
        }
        "below a symlink to nothing" => Some("it makes no directory where a symlink leads"),
        "character device 0:0" => Some("it makes the device; here it is dropped"),
        _ => None,
    }
}

/// Why Python refuses an archive, if that is known.
pub(super) fn python_refuses(error: &str) -> Option<&'static str> {
    match error {
        "rule: no target" => Some(REPLACED_LINK),
        // Any other header that has no entry is refused here too.
        "ReadError: end of file header" | "ReadError: empty header" => {
            Some("a global header that no entry follows")
        }
        _ => None,
    }
}

/// Why GNU tar refuses an archive that is read here, if that is known.
pub(super) fn gnu_refuses(error: &str) -> Option<&'static str> {
    error.contains("Cannot hard link to").then_some(REPLACED_LINK)
}

const REPLACED_LINK: &str =
    "a hardlink to nothing whose name a later entry takes: nothing is left of it here";

/// Why Python makes something else of an archive with this feature, if it does.
pub(super) fn python_differs(feature: &str) -> Option<&'static str> {
    match feature {
        "prefix in a header that is not of POSIX" => Some("it reads the field in every header"),
        "slash in a name that an extended header replaces" => {
            Some("it takes the entry for a directory before it knows the name")
        }
        _ => None,
    }
}
