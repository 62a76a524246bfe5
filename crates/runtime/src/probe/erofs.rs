//! Whether the kernel mounts an EROFS image out of a plain file, with blocks of 512 bytes.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::{Finding, Lack};

const BLOCK_BITS: u8 = 9;
const BLOCK: usize = 1 << BLOCK_BITS;
/// Where the superblock is, in any EROFS image.
const SUPERBLOCK: usize = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// The block with the inodes, and the number of the root's (its offset in units of 32 bytes).
const METADATA_BLOCK: u32 = 3;
const ROOT: u16 = 1;

pub(super) fn mount(dir: &Path) -> Finding {
    let hint = "install Linux 6.12 or newer, built with CONFIG_EROFS_FS and \
        CONFIG_EROFS_FS_BACKED_BY_FILE";
    try_mount(dir)
        .map(|()| "mounted from a file, with blocks of 512 bytes".to_owned())
        .map_err(|error| Lack::fatal(&error, hint))
}

fn try_mount(dir: &Path) -> io::Result<()> {
    // Without a name, so that nothing is left however this ends.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(dir, flags, Mode::from_raw_mode(0o600))?);
    file.write_all(&image())?;
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    fsconfig_set_string(context.as_fd(), "source", source)?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_create(context.as_fd())?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, read_only)?;
    let root = rustix::fs::fstat(&mount)?;
    if root.st_mode == u32::from(ROOT_MODE) {
        Ok(())
    } else {
        Err(io::Error::other(format!("its root has the mode {:o}", root.st_mode)))
    }
}

/// A directory with rights that no default has.
const ROOT_MODE: u16 = 0o40_751;

/// The smallest image: a superblock, and an empty root directory.
fn image() -> Vec<u8> {
    let mut image = vec![0; 8 * BLOCK];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(SUPERBLOCK, &MAGIC.to_le_bytes());
    put(SUPERBLOCK + 12, &[BLOCK_BITS]);
    put(SUPERBLOCK + 14, &ROOT.to_le_bytes());
    put(SUPERBLOCK + 16, &1u64.to_le_bytes());
    put(SUPERBLOCK + 36, &8u32.to_le_bytes());
    put(SUPERBLOCK + 40, &METADATA_BLOCK.to_le_bytes());
    let inode = METADATA_BLOCK as usize * BLOCK + usize::from(ROOT) * 32;
    put(inode + 4, &ROOT_MODE.to_le_bytes());
    put(inode + 6, &2u16.to_le_bytes());
    image
}
