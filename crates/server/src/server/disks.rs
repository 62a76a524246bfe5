//! What the disks of sandboxes are on this host.

use std::error::Error;
use std::path::Path;

use kiln_roots::{HostUppers, ImageUppers, RootsError, UpperKind, UpperLimits};
use kiln_types::ErrorCode;

use crate::config::{Config, Uppers};

/// Most disks of build steps that are kept ready: steps run one after another, a few builds at once.
const STEPS: usize = 2;

/// Opens the disks, in `dir`. New ones are what the configuration says.
pub(super) fn open(config: &Config, dir: &Path) -> Result<HostUppers, RootsError> {
    let kind = match config.uppers {
        Uppers::Directory => UpperKind::Directory,
        Uppers::Image => UpperKind::Image,
        Uppers::Auto => UpperKind::Image,
    };
    let uppers = HostUppers::open(dir, kind)?;
    if kind == UpperKind::Directory {
        return Ok(uppers);
    }
    match ImageUppers::probe(dir) {
        Ok(()) => {}
        // Says nothing about the host: there is room for images again as soon as there is room.
        Err(error) if config.uppers == Uppers::Auto && error.code() == ErrorCode::StorageFull => {
            tracing::warn!(
                error = &error as &dyn Error,
                "the disk is too full to try whether this host has images; that is taken for granted"
            );
        }
        Err(error) if config.uppers == Uppers::Auto => {
            tracing::error!(
                error = &error as &dyn Error,
                "NOTHING BOUNDS THE DISKS OF SANDBOXES on this host: they are directories, since images do not work; `kiln doctor` says more"
            );
            return HostUppers::open(dir, UpperKind::Directory);
        }
        Err(error) => return Err(error),
    }
    let size = |mib: u32| UpperLimits { bytes: u64::from(mib) << 20 };
    let steps = config.pool_size.min(STEPS);
    for (mib, count) in [
        (config.build_disk_mib, steps),
        // Last, so that it holds where both are the same.
        (config.defaults.disk_mib, config.pool_size),
    ] {
        uppers.images().keep_ready(size(mib), count)?;
    }
    Ok(uppers)
}
