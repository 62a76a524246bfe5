//! The tars that hold a layer's file data.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use kiln_layer::{Extent, Index, LayerError};
use kiln_types::DiffId;
use rustix::io::Errno;

use super::browse::shown;
use crate::{LayerSource, RootsError};

/// Bytes of a tar's block.
const BLOCK: u64 = 512;

/// The open tars of one layer.
#[derive(Debug)]
pub(super) struct Files {
    /// The index, for messages.
    index: PathBuf,
    tars: HashMap<DiffId, File>,
}

impl Files {
    /// Opens the tars, which have to be those that the index names, of the sizes that it gives them.
    pub(super) fn open(index: &Index, layer: &LayerSource) -> Result<Self, RootsError> {
        let mismatch = |problem| RootsError::Mismatch { index: layer.index.clone(), problem };
        let named = index.devices();
        if named.len() != layer.devices.len() {
            let found = layer.devices.len();
            return Err(mismatch(format!("it names {} tars, not {found}", named.len())));
        }
        let mut tars = HashMap::new();
        for ((diff_id, blocks), path) in named.iter().zip(index.device_blocks()).zip(&layer.devices)
        {
            let io =
                |action| move |source| RootsError::Io { action, path: path.to_owned(), source };
            let file = File::open(path).map_err(io("open the tar"))?;
            let size = file.metadata().map_err(io("look at the tar"))?.size();
            if size.div_ceil(BLOCK) != u64::from(*blocks) {
                return Err(mismatch(format!(
                    "{} has {size} bytes, not {blocks} blocks of {BLOCK}",
                    path.display()
                )));
            }
            tars.insert(*diff_id, file);
        }
        Ok(Self { index: layer.index.clone(), tars })
    }

    /// Fills `buffer` from the start of `extent` plus `skip`.
    pub(super) fn read(&self, extent: &Extent, skip: u64, buffer: &mut [u8]) -> io::Result<()> {
        let tar = self.tars.get(&extent.tar).ok_or(io::ErrorKind::NotFound)?;
        tar.read_exact_at(buffer, extent.offset + skip)
    }

    /// The index says something that it may not say.
    pub(super) fn refused(&self, source: LayerError) -> RootsError {
        RootsError::Index { index: self.index.clone(), source: Box::new(source) }
    }

    /// A step on an entry of the layer failed.
    pub(super) fn fail(&self, path: &Path, step: &'static str, error: Errno) -> RootsError {
        self.failed(path, step, error.into())
    }

    /// The same, with an error of the standard library.
    pub(super) fn failed(&self, path: &Path, step: &'static str, source: io::Error) -> RootsError {
        RootsError::LayOut { index: self.index.clone(), entry: shown(path), step, source }
    }
}
