//! Layers as EROFS mounts: a metadata index whose data devices are the layer tars.

mod probe;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::attached::placeless_mounts_are_whole;
use crate::directories::Store;
use crate::overlay::kernel_messages;
use crate::{LayerDamage, LayerMounts, LayerSource, RootsError};

/// How many layers are kept mounted. Each costs one descriptor and one superblock.
const KEPT: usize = 512;

/// Mounts layers by the kernel's EROFS, file-backed and without loop devices. Keeps what it mounted, so
/// that all sandboxes of an image share one superblock, and one page cache, for each layer.
#[derive(Debug, Default)]
pub struct ErofsMounts {
    kept: Mutex<Kept>,
    /// Layers as directories, of a time when this was the way to mount them.
    directories: Option<Store>,
}

#[derive(Debug, Default)]
struct Kept {
    mounts: HashMap<PathBuf, KeptMount>,
    clock: u64,
}

#[derive(Debug)]
struct KeptMount {
    mount: OwnedFd,
    devices: Vec<PathBuf>,
    /// Device, inode and length of the index: another file at the same path is another layer.
    identity: (u64, u64, u64),
    used: u64,
}

impl ErofsMounts {
    /// An empty set of mounts.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty set of mounts, beside `dir` of [`crate::DirectoryMounts`]: what sandboxes of an earlier
    /// daemon still run on stays there, and goes when it is forgotten.
    pub fn beside(dir: &Path) -> Result<Self, RootsError> {
        let directories = if dir.is_dir() { Some(Store::open(dir)?) } else { None };
        Ok(Self { kept: Mutex::default(), directories })
    }

    /// Mounts a tiny index with a tar, and reads a file through the mount: whether this kernel can do
    /// what is asked of it, on the file system of `dir`. Leaves nothing behind.
    pub fn probe(dir: &Path) -> Result<(), RootsError> {
        probe::probe(dir)
    }

    /// How many layers are kept mounted.
    pub fn kept(&self) -> usize {
        self.lock().mounts.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Every change of the map is one call, so a panic elsewhere leaves it whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LayerMounts for ErofsMounts {
    fn mode(&self) -> &'static str {
        "erofs"
    }

    fn mount(&self, layer: &LayerSource) -> Result<OwnedFd, RootsError> {
        if !placeless_mounts_are_whole() {
            // There are no copies of a mount that is kept: each sandbox has a superblock of its own.
            return mount(layer);
        }
        let identity = identity(&layer.index)?;
        {
            let mut kept = self.lock();
            kept.clock += 1;
            let now = kept.clock;
            if let Some(found) = kept.mounts.get_mut(&layer.index)
                && found.identity == identity
                && found.devices == layer.devices
            {
                found.used = now;
                return clone(found.mount.as_fd(), &layer.index);
            }
        }
        // Two threads may both come here for one layer: each then has a superblock, one is kept.
        let mount = mount(layer)?;
        let given = clone(mount.as_fd(), &layer.index)?;
        let mut kept = self.lock();
        let used = kept.clock;
        kept.mounts.insert(
            layer.index.clone(),
            KeptMount { mount, devices: layer.devices.clone(), identity, used },
        );
        if kept.mounts.len() > KEPT
            && let Some(oldest) =
                kept.mounts.iter().min_by_key(|(_, kept)| kept.used).map(|(index, _)| index.clone())
        {
            kept.mounts.remove(&oldest);
        }
        Ok(given)
    }

    /// The first mount takes a tenth of a millisecond more than any other.
    fn prepare(&self, _layer: &LayerSource) -> Result<(), RootsError> {
        Ok(())
    }

    fn forget(&self, index: &Path) -> Result<(), RootsError> {
        self.lock().mounts.remove(index);
        match &self.directories {
            Some(directories) => directories.remove_all_of(&Store::stem(index)?).map(drop),
            None => Ok(()),
        }
    }

    fn sweep(&self, _known: &[PathBuf], used: &[PathBuf]) -> Result<u64, RootsError> {
        let Some(directories) = &self.directories else { return Ok(0) };
        let keep = Store::stems(used.iter())?;
        directories.retain(|stem| keep.contains(stem))
    }

    /// There is nothing besides the files themselves.
    fn verify(&self, _layer: &LayerSource) -> Result<Vec<LayerDamage>, RootsError> {
        Ok(Vec::new())
    }

    fn bytes(&self, index: &Path) -> Result<u64, RootsError> {
        match &self.directories {
            Some(directories) => directories.bytes_of(&Store::stem(index)?),
            None => Ok(0),
        }
    }
}

fn identity(index: &Path) -> Result<(u64, u64, u64), RootsError> {
    let found = fs::metadata(index).map_err(|source| RootsError::Io {
        action: "look at the layer index",
        path: index.to_owned(),
        source,
    })?;
    Ok((found.dev(), found.ino(), found.len()))
}

fn mount(layer: &LayerSource) -> Result<OwnedFd, RootsError> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|error| fail(layer, "fsopen(erofs)", String::new(), error))?;
    let explain = |step: &'static str| {
        let context = context.as_fd();
        move |error: rustix::io::Errno| fail(layer, step, kernel_messages(context), error)
    };
    fsconfig_set_string(&context, "source", layer.index.as_path())
        .map_err(explain("fsconfig(source)"))?;
    for device in &layer.devices {
        fsconfig_set_string(&context, "device", device.as_path())
            .map_err(explain("fsconfig(device)"))?;
    }
    fsconfig_set_flag(&context, "ro").map_err(explain("fsconfig(ro)"))?;
    fsconfig_create(&context).map_err(explain("fsconfig(create)"))?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV,
    )
    .map_err(explain("fsmount"))
}

fn clone(mount: BorrowedFd<'_>, index: &Path) -> Result<OwnedFd, RootsError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(mount, "", flags).map_err(|error| RootsError::Layer {
        index: index.to_owned(),
        step: "open_tree",
        kernel: String::new(),
        source: error.into(),
    })
}

fn fail(
    layer: &LayerSource,
    step: &'static str,
    kernel: String,
    error: rustix::io::Errno,
) -> RootsError {
    RootsError::Layer { index: layer.index.clone(), step, kernel, source: io::Error::from(error) }
}
