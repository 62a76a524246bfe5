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

/// Something in what is kept of a layer that is not as the layer's files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDamage {
    /// Path in the layer, escaped; `/` is its root.
    pub entry: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Makes layers into mounts. All calls block.
///
/// The files of a [`LayerSource`] are the truth; whatever an implementation keeps besides them can be
/// made again from them at any time.
pub trait LayerMounts: Send + Sync + fmt::Debug {
    /// The name of the way in which layers are mounted: `erofs` or `directory`.
    fn mode(&self) -> &'static str;

    /// Gives a detached, read-only mount of the layer with `nodev` set, which the caller owns and may
    /// still give an id mapping. Whiteouts and opaque marks in it are those of overlayfs (`trusted.*`).
    fn mount(&self, layer: &LayerSource) -> Result<OwnedFd, RootsError>;

    /// Does ahead of the first mount what makes it slow. After a failure nothing is left of it.
    fn prepare(&self, layer: &LayerSource) -> Result<(), RootsError>;

    /// Lets go of whatever is kept of the layer with this index, so that removing its files frees
    /// their space. Nothing may use a mount of the layer any more: what such a mount then shows is
    /// not defined. What cannot be removed is removed by a later [`LayerMounts::sweep`].
    fn forget(&self, index: &Path) -> Result<(), RootsError>;

    /// Removes what is kept of layers that are not there any more, and gives the bytes that were freed.
    ///
    /// `known` are the indexes of all layers there are, `used` those of the layers that sandboxes may
    /// be running on: of these, what is kept of them stays.
    fn sweep(&self, known: &[PathBuf], used: &[PathBuf]) -> Result<u64, RootsError>;

    /// Compares every entry and every byte of what is kept of the layer with the layer's files, which
    /// have been found whole. Nothing kept is no damage. [`LayerMounts::forget`] is the repair.
    fn verify(&self, layer: &LayerSource) -> Result<Vec<LayerDamage>, RootsError>;

    /// The bytes on disk that are kept of the layer with this index, besides its own files.
    fn bytes(&self, index: &Path) -> Result<u64, RootsError>;
}
