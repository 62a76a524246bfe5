//! Overlays for Linux before 6.15, where a layer has to be a mount with a place: it gets one in a mount
//! namespace that nobody else is in and that ends with the thread which made it.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsmount, fsopen, mount, mount_change, move_mount, open_tree,
};
use rustix::process::fchdir;

use crate::sys;

/// Whether the kernel takes a mount without a place for all that one with a place is good for: for a copy
/// of it, and for a layer of an overlay. Linux does since 6.15. A kernel that cannot be asked is a new one,
/// so that the mount itself says what is wrong.
pub(crate) fn placeless_mounts_are_whole() -> bool {
    static WHOLE: OnceLock<bool> = OnceLock::new();
    *WHOLE.get_or_init(|| {
        let copied = empty().and_then(|empty| copy(&empty, ""));
        !matches!(copied, Err(rustix::io::Errno::INVAL))
    })
}

/// An empty file system as a mount without a place.
fn empty() -> Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn copy(directory: &OwnedFd, path: &str) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(directory, path, flags)
}

/// A step that failed, and how.
pub(crate) type Failed = (&'static str, rustix::io::Errno);

/// The layers and the upper of one overlay, each at its place.
pub(crate) struct Places {
    /// All that the namespace of this thread has of its own; also this thread's working directory.
    all: OwnedFd,
    layers: usize,
}

impl Places {
    /// Takes this thread into a mount namespace of its own, and gives the mounts their places. The thread
    /// has to end after its work: it does not come back.
    pub(crate) fn make(lowers: &[OwnedFd], upper: &OwnedFd) -> std::result::Result<Self, Failed> {
        sys::own_mount_namespace().map_err(|error| ("unshare(mnt)", error))?;
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        mount_change("/", private).map_err(|error| ("mount(private)", error))?;
        let all = empty().map_err(|error| ("mount(tmpfs)", error))?;
        let place = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        // Above the root directory, where this thread, whose root is below it, does not come across it.
        move_mount(&all, "", CWD, "/", place).map_err(|error| ("move_mount(tmpfs)", error))?;
        fchdir(&all).map_err(|error| ("fchdir", error))?;
        let put = |mount: &OwnedFd, name: &str| {
            mkdirat(&all, name, Mode::RWXU)?;
            move_mount(mount, "", &all, name, place)
        };
        for (number, lower) in lowers.iter().enumerate() {
            put(lower, &number.to_string()).map_err(|error| ("move_mount(layer)", error))?;
        }
        put(upper, "upper").map_err(|error| ("move_mount(upper)", error))?;
        mkdirat(&all, "root", Mode::RWXU).map_err(|error| ("mkdir", error))?;
        Ok(Self { all, layers: lowers.len() })
    }

    /// Mounts the overlay with `options` besides its layers, and gives it as a mount without a place.
    pub(crate) fn mount(&self, options: &str) -> std::result::Result<OwnedFd, Failed> {
        // Short names: all of it has to fit into a page. Those of most layers are two digits long.
        let mut data = String::from("upperdir=upper/u,workdir=upper/w,lowerdir=");
        for number in (0..self.layers).rev() {
            let end = if number == 0 { "" } else { ":" };
            // Writing to a string cannot fail.
            let _ = write!(data, "{number}{end}");
        }
        data.push_str(options);
        let data = std::ffi::CString::new(data).map_err(|_| ("mount", rustix::io::Errno::INVAL))?;
        mount("overlay", "root", "overlay", MountFlags::NODEV, data.as_c_str())
            .map_err(|error| ("mount(overlay)", error))?;
        copy(&self.all, "root").map_err(|error| ("open_tree", error))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use rustix::fs::{AtFlags, OFlags, openat, statat};

    use super::*;

    fn file(directory: &OwnedFd, name: &str, flags: OFlags) -> Result<File> {
        openat(directory, name, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    /// The way of older kernels is one that newer ones know too.
    #[test]
    fn mounts_with_places_make_an_overlay() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP it takes root to mount");
            return;
        }
        let lowers: Vec<OwnedFd> = (0..120).map(|_| empty().unwrap()).collect();
        for (number, lower) in lowers.iter().enumerate() {
            let name = format!("of-{number}");
            for (name, text) in [(name.as_str(), "x".to_owned()), ("top", number.to_string())] {
                let mut file = file(lower, name, OFlags::CREATE | OFlags::WRONLY).unwrap();
                file.write_all(text.as_bytes()).unwrap();
            }
        }
        let upper = empty().unwrap();
        for name in ["u", "w"] {
            mkdirat(&upper, name, Mode::RWXU).unwrap();
        }
        let namespace = || std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        let before = namespace();
        let root = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let places = Places::make(&lowers, &upper).unwrap();
                assert_ne!(namespace(), before);
                places.mount(",redirect_dir=nofollow,metacopy=off,index=off").unwrap()
            });
            thread.join().unwrap()
        });
        assert_eq!(namespace(), before, "only the thread was elsewhere");
        let mut top = String::new();
        file(&root, "top", OFlags::RDONLY).unwrap().read_to_string(&mut top).unwrap();
        assert_eq!(top, "119", "the last layer is the uppermost");
        statat(&root, "of-0", AtFlags::empty()).unwrap();
        file(&root, "new", OFlags::CREATE | OFlags::WRONLY).unwrap();
        statat(&upper, "u/new", AtFlags::empty()).unwrap();
    }
}
