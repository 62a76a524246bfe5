//! Mounts without a place in the file tree: they vanish with the descriptor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// Whether this process may mount EROFS and overlayfs; if not, says why the test is skipped.
pub(crate) fn can_mount() -> bool {
    for name in ["erofs", "overlay"] {
        if let Err(error) = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC) {
            eprintln!("SKIP cannot mount {name}: {error}");
            return false;
        }
    }
    true
}

pub(crate) struct Mount(OwnedFd);

impl Mount {
    /// A path to the mount's root, for this process and its children.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    pub(crate) fn erofs(index: &Path, tars: &[&Path]) -> Self {
        let fs = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_set_string(fs.as_fd(), "source", index).unwrap();
        for tar in tars {
            fsconfig_set_string(fs.as_fd(), "device", *tar).unwrap();
        }
        fsconfig_set_flag(fs.as_fd(), "ro").unwrap();
        Self::create(fs, MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    /// Read-only overlay, top layer first.
    pub(crate) fn overlay(lowers: &[&Mount]) -> Self {
        let fs = overlay_context();
        for lower in lowers {
            fsconfig_set_fd(fs.as_fd(), "lowerdir+", lower.0.as_fd()).unwrap();
        }
        Self::create(fs, MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    /// Overlay with an upper directory; `work` has to be on the same file system.
    pub(crate) fn overlay_on(lowers: &[&Mount], upper: &Path, work: &Path) -> Self {
        let fs = overlay_context();
        for lower in lowers {
            fsconfig_set_fd(fs.as_fd(), "lowerdir+", lower.0.as_fd()).unwrap();
        }
        fsconfig_set_string(fs.as_fd(), "upperdir", upper).unwrap();
        fsconfig_set_string(fs.as_fd(), "workdir", work).unwrap();
        Self::create(fs, MountAttrFlags::empty())
    }

    fn create(fs: OwnedFd, flags: MountAttrFlags) -> Self {
        fsconfig_create(fs.as_fd()).unwrap();
        Self(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).unwrap())
    }
}

fn overlay_context() -> OwnedFd {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for (key, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")] {
        fsconfig_set_string(fs.as_fd(), key, value).unwrap();
    }
    fs
}
