//! A sandbox's `/dev` and the files that the runtime writes, on tmpfs file systems of the host.
//!
//! The host makes the device nodes, so they work; they belong to the sandbox's root by their numeric
//! owner, so no id-mapped mount is needed. Nothing that the sandbox writes here reaches a disk, and the
//! sizes are bounded.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, makedev, mkdirat, mknodat, openat,
    symlinkat,
};
use rustix::mount::MountAttrFlags;

use super::mounts::{PLAIN, attach, directory, filesystem};
use super::skeleton::{DEV, FILES};
use super::step::{Failure, Step};

/// Device nodes: name, major and minor number (Linux's devices.txt).
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Symbolic links: name and target.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];
/// Where other file systems are mounted.
const DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];

/// Makes and attaches both, for a sandbox whose root is `owner` on the host. Expects an empty umask.
pub(super) fn make(owner: u32) -> Result<(), Failure> {
    let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let dev = mount(DEV, "1m", nosuid, owner)?;
    let own = |name: &str| give(dev.as_fd(), name, owner);
    for (name, major, minor) in NODES {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor))
            .step(&format!("make /dev/{name}"))?;
        own(name)?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).step(&format!("make /dev/{name}"))?;
        own(name)?;
    }
    for name in DIRECTORIES {
        mkdirat(&dev, name, Mode::from_raw_mode(0o755)).step(&format!("make /dev/{name}"))?;
        own(name)?;
    }
    mount(FILES, "256k", PLAIN, owner).map(drop)
}

/// Writes one of the runtime's files, and says where it is.
pub(super) fn write_file(name: &str, content: &str, owner: u32) -> Result<OwnedFd, Failure> {
    let step = format!("write the sandbox's {name}");
    let dir = directory(FILES).step(&step)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&dir, name, flags, Mode::from_raw_mode(0o644)).step(&step)?;
    let mut left = content.as_bytes();
    while !left.is_empty() {
        let written = rustix::io::write(&file, left).step(&step)?;
        left = &left[written..];
    }
    give(dir.as_fd(), name, owner)?;
    openat(&dir, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(&step)
}

fn mount(path: &str, size: &str, flags: MountAttrFlags, owner: u32) -> Result<OwnedFd, Failure> {
    let owner = owner.to_string();
    let options = [("size", size), ("mode", "755"), ("uid", &owner), ("gid", &owner)];
    let mount = filesystem("tmpfs", &options, flags).step(&format!("mount {path}"))?;
    let target = directory(path).step(&format!("find {path}"))?;
    attach(mount.as_fd(), target.as_fd()).step(&format!("attach {path}"))?;
    Ok(mount)
}

fn give(dir: BorrowedFd<'_>, name: &str, owner: u32) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .step(&format!("give {name} to the sandbox's root"))
}
