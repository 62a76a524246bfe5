//! Roots: layers and an upper, joined.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::overlay::{Parts, clone_path};
use crate::{LayerMounts, LayerSource, RootsError, UpperStore, skeleton};

/// Makes sandbox roots.
#[derive(Debug)]
pub struct Roots {
    skeleton: PathBuf,
    mounts: Arc<dyn LayerMounts>,
    uppers: Arc<dyn UpperStore>,
}

impl Roots {
    /// Roots whose fixed files are kept below `data_dir`.
    pub fn new(
        data_dir: &Path,
        mounts: Arc<dyn LayerMounts>,
        uppers: Arc<dyn UpperStore>,
    ) -> Result<Self, RootsError> {
        Ok(Self { skeleton: skeleton::ensure(data_dir)?, mounts, uppers })
    }

    /// The uppers.
    pub fn uppers(&self) -> &Arc<dyn UpperStore> {
        &self.uppers
    }

    /// The layers' mounts.
    pub fn layer_mounts(&self) -> &Arc<dyn LayerMounts> {
        &self.mounts
    }

    /// Makes `layers` ready, so that the first mount of them takes no longer than any other.
    pub fn prepare(&self, layers: &[LayerSource]) -> Result<(), RootsError> {
        layers.iter().try_for_each(|layer| self.mounts.prepare(layer))
    }

    /// Mounts `layers` (base first) below the upper `upper`, all with the ids of `userns`, whose first
    /// id is the host's `base`.
    ///
    /// The mount is detached, writable and `nodev`; owner 0 in it is `base` on the host. With
    /// `volatile` nothing is ever synced: the upper is for one mount, and a crash makes it worthless.
    pub fn mount(
        &self,
        layers: &[LayerSource],
        upper: &str,
        userns: BorrowedFd<'_>,
        base: u32,
        volatile: bool,
    ) -> Result<OwnedFd, RootsError> {
        let upper_dir = self.uppers.open(upper)?;
        let mut lowers = Vec::with_capacity(layers.len() + 1);
        lowers.push(clone_path(&self.skeleton)?);
        for layer in layers {
            lowers.push(self.mounts.mount(layer)?);
        }
        use std::os::fd::AsFd as _;
        Parts { upper, lowers, upper_dir: upper_dir.as_fd(), userns, base, volatile }.mount()
    }
}
