//! OCI layer changesets as streams: tar in → validated tree → EROFS index; upper directory → canonical tar.
//!
//! This crate owns the layer tar rules (what is accepted, what is refused and by which name), the index
//! format (an EROFS image that holds metadata only and leaves file data in the tars it names), its writer
//! and its reader, and the canonical tar of an overlayfs upper directory. `docs/formats/layer.md` describes
//! all of it.
//!
//! It never extracts a layer: no name that an archive holds becomes a path of the host. It does not mount,
//! does not know where blobs are stored, does not compress, and is blocking code only.

#![forbid(unsafe_code)]

mod attributes;
mod erofs;
mod error;
mod index;
mod inflate;
mod limits;
mod name;
mod read;
mod tar;
mod tree;
mod upper;

pub use attributes::{HOST_LABELS, Mtime, Xattr};
pub use error::{EntryProblem, LayerError};
pub use index::{
    DevicePolicy, EntryKind, Extent, Index, IndexEntry, IndexInfo, IndexOptions, Totals, Walk,
    write_index, write_index_with,
};
pub use limits::Limits;
pub use read::{ReadLayer, read_layer, read_layer_hashed, read_tar_file, read_tar_tree};
pub use tree::{Dropped, LayerTree};
pub use upper::{UpperOptions, UpperReport, write_upper_tar};
