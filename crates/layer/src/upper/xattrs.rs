//! The xattrs of an upper directory's inodes, and what overlayfs says with some of them.

use std::io;

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;

use crate::attributes::{HOST_LABELS, Xattr};

const OVERLAY: &[u8] = b"trusted.overlay.";

/// The xattrs that a layer takes over, sorted, and overlayfs's marks.
#[derive(Debug, Default)]
pub(super) struct UpperXattrs {
    pub(super) kept: Vec<Xattr>,
    pub(super) opaque: bool,
    /// A mark that a layer cannot express.
    pub(super) refused: Option<String>,
}

/// Reads the xattrs of what `fd`, which may be opened by `O_PATH`, refers to.
pub(super) fn read(fd: BorrowedFd<'_>) -> io::Result<UpperXattrs> {
    // No call takes an O_PATH descriptor; its name in /proc leads to the inode itself, even to a symlink.
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let names = grow(|buffer| rustix::fs::listxattr(&path, buffer))?;
    let mut xattrs = UpperXattrs::default();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if HOST_LABELS.contains(&name) {
            continue;
        }
        let value = grow(|buffer| rustix::fs::getxattr(&path, name, buffer))?;
        match name.strip_prefix(OVERLAY) {
            None => xattrs.kept.push(Xattr { name: name.to_vec(), value }),
            Some(b"opaque") if value == b"y" => xattrs.opaque = true,
            Some(mark @ (b"opaque" | b"redirect" | b"metacopy" | b"whiteout" | b"whiteouts")) => {
                let mark = String::from_utf8_lossy(mark);
                let value = String::from_utf8_lossy(&value);
                xattrs.refused = Some(format!(
                    "overlayfs marked it `{mark}` (`{value}`), which refers to other layers; mount with \
                     redirect_dir=nofollow and metacopy=off"
                ));
            }
            // origin, impure, nlink, uuid, ...: only for overlayfs's own use.
            Some(_) => {}
        }
    }
    xattrs.kept.sort();
    Ok(xattrs)
}

/// Calls `get` with a buffer that is large enough.
fn grow(mut get: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match get(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            // The kernel's own limit is 64 KiB.
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 16, 0),
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}
