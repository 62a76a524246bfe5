//! The interface to mounted layers.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::RootsError;

/// The files that a layer is mounted from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LayerSource {
    /// Its metadata index.
    pub index: PathBuf,
    /// The tars that hold its file data, in the order of the index's device table.
    pub devices: Vec<PathBuf>,
}

/// Makes layers into mounts.
pub trait LayerMounts: Send + Sync + fmt::Debug {
    /// Gives a detached, read-only mount of the layer with `nodev` set, which the caller owns and may
    /// still give an id mapping. Whiteouts and opaque marks in it are those of overlayfs (`trusted.*`).
    fn mount(&self, layer: &LayerSource) -> Result<OwnedFd, RootsError>;

    /// Lets go of whatever is kept of the layer with this index, so that removing its files frees
    /// their space. Mounts that were given out stay as they are.
    fn forget(&self, index: &Path);
}
