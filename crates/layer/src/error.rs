//! Why a layer could not be read, indexed or written.

use std::io;
use std::path::PathBuf;

use kiln_types::DiffId;

use crate::name::Printable;

/// A failed operation of this crate.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Reading the archive's bytes failed.
    #[error("cannot read the layer archive at byte {offset} (after decompression)")]
    ReadInput {
        /// Position in the uncompressed tar.
        offset: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Writing the uncompressed tar failed.
    #[error("cannot write the layer's uncompressed tar")]
    WriteTar(#[source] io::Error),
    /// The input is not an archive that this crate reads.
    #[error("the layer archive is not usable: {0}")]
    NotAnArchive(&'static str),
    /// The archive as a whole exceeds a limit.
    #[error(
        "the layer archive has more than {limit} {what}, reached at entry `{entry}`; raise the limit \
         `{name}` if it is trusted"
    )]
    Limit {
        /// The entry that was being read.
        entry: String,
        /// What there is too much of, in plural.
        what: &'static str,
        /// The field of [`crate::Limits`].
        name: &'static str,
        /// Its value.
        limit: u64,
    },
    /// One member of the archive is refused.
    #[error("layer entry `{entry}` (header at byte {offset}): {problem}")]
    Entry {
        /// The entry's path as far as it is known, control and non-UTF-8 bytes escaped.
        entry: String,
        /// Position of its header in the uncompressed tar.
        offset: u64,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// An entry cannot be placed on the layers below.
    #[error("layer entry `{entry}` does not fit the layers below: {problem}")]
    Placement {
        /// The entry's path.
        entry: String,
        /// What is wrong.
        problem: String,
    },
    /// The layer is too large for the index format.
    #[error("the index cannot describe `{entry}`: {problem}")]
    Unrepresentable {
        /// The entry's path.
        entry: String,
        /// The bound that is exceeded.
        problem: String,
    },
    /// Writing the index failed.
    #[error("cannot write the index of layer {layer}")]
    WriteIndex {
        /// The layer's tar.
        layer: DiffId,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Opening or reading an index failed.
    #[error("cannot read the index {}", path.display())]
    ReadIndex {
        /// The index file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An index is not what the writer of this crate makes.
    #[error("the index {} is damaged: {problem}; make it again from the layer's tar", path.display())]
    DamagedIndex {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An operation on an upper directory failed.
    #[error("cannot {operation} `{path}` of the upper directory")]
    ReadUpper {
        /// The operation, as a verb.
        operation: &'static str,
        /// Path below the upper directory, escaped.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Something in an upper directory has no form in a layer.
    #[error("`{path}` of the upper directory cannot be put into a layer: {problem}")]
    UpperEntry {
        /// Path below the upper directory, escaped.
        path: String,
        /// Why.
        problem: String,
    },
    /// The files of an upper directory are larger than allowed.
    #[error(
        "the upper directory holds {size} bytes of files (holes count in full), more than {limit}"
    )]
    UpperTooLarge {
        /// Sum of the apparent sizes.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

impl LayerError {
    /// Whether the layer itself is at fault, not the machine that reads it.
    pub fn is_bad_layer(&self) -> bool {
        match self {
            Self::NotAnArchive(_)
            | Self::Limit { .. }
            | Self::Entry { .. }
            | Self::Placement { .. }
            | Self::Unrepresentable { .. } => true,
            // Decompressors report damaged input as these kinds.
            Self::ReadInput { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::UnexpectedEof
            ),
            _ => false,
        }
    }

    /// Names the entry at which a limit on the whole was reached.
    pub(crate) fn at_entry(mut self, name: &[u8]) -> Self {
        if let Self::Limit { entry, .. } = &mut self {
            *entry = Printable(name).to_string();
        }
        self
    }

    pub(crate) fn entry(name: &[u8], offset: u64, problem: EntryProblem) -> Self {
        Self::Entry { entry: Printable(name).to_string(), offset, problem }
    }
}

/// Why a member of an archive is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryProblem {
    /// The archive ends inside the member.
    #[error("the archive ends inside this entry")]
    Truncated,
    /// The header's checksum does not match its bytes.
    #[error("the header checksum is wrong: the archive is damaged, or not a tar")]
    Checksum,
    /// A number is malformed, negative or too large.
    #[error("the field `{field}` is not a number in its range")]
    Number {
        /// The field of the header, or the PAX keyword.
        field: String,
    },
    /// A typeflag that this crate does not know.
    #[error("the entry type `{}` is not supported", char::from(*.0).escape_default())]
    Type(u8),
    /// A sparse member.
    #[error("sparse entries are not supported; make the archive without `--sparse`")]
    Sparse,
    /// An extended header is malformed.
    #[error("its extended header is malformed: {0}")]
    Extension(String),
    /// An extended header has nothing to extend.
    #[error("an extended header is not followed by the entry that it describes")]
    DanglingExtension,
    /// A global header sets what tools disagree on.
    #[error("a global PAX header sets `{0}` for every entry; put it into each entry's own header")]
    GlobalOverride(String),
    /// A zero block is followed by data.
    #[error(
        "a single zero block is followed by data: tools disagree whether the archive ends there"
    )]
    LoneZeroBlock,
    /// An entry that has no data announces some.
    #[error("an entry of this type cannot have data, but its size is {0}")]
    UnexpectedData(u64),
    /// `..` in a path.
    #[error("the path has a `..` component")]
    ParentComponent,
    /// A path that names nothing, or holds a NUL byte.
    #[error("the path is not usable: {0}")]
    Path(&'static str),
    /// The entry lies below something that is not a directory in the same layer.
    #[error("`{0}` is not a directory in this layer")]
    BelowNonDirectory(String),
    /// The entry, or the target of a hardlink, lies below a symlink of the same layer that cannot be followed.
    #[error("`{link}` is a symlink that cannot be followed: {problem}")]
    Symlink {
        /// The first symlink on the way.
        link: String,
        /// Why.
        problem: String,
    },
    /// A link that cannot be made.
    #[error("the link target `{target}` {problem}")]
    Link {
        /// The target as the archive spells it.
        target: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An xattr whose value the kernel would not take.
    #[error("its xattr `{name}` {problem}")]
    Xattr {
        /// The xattr.
        name: String,
        /// What is wrong with its value.
        problem: &'static str,
    },
    /// A whiteout that names nothing that could be hidden.
    #[error("the whiteout names nothing that a layer can hide")]
    Whiteout,
    /// A limit on one entry is exceeded.
    #[error("its {what} is longer than {limit}; raise the limit `{name}` if the layer is trusted")]
    Limit {
        /// What is too long.
        what: &'static str,
        /// The field of [`crate::Limits`].
        name: &'static str,
        /// Its value.
        limit: u64,
    },
}
