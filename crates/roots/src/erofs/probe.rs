//! Whether the kernel mounts what Kiln makes: an EROFS of 512-byte blocks with a tar for its data, both
//! plain files of the data directory's file system.

use std::fs::File;
use std::io::{self, Cursor, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use kiln_layer::{LayerError, Limits, read_layer, write_index};
use rustix::fs::{Mode, OFlags, openat};

use super::mount;
use crate::{LayerSource, RootsError};

const NAME: &str = "probe";
/// Longer than one block, so that it is read from where the index says and not from where it happens
/// to begin.
const CONTENT: &[u8] = &[b'k'; 700];
const BLOCK: usize = 512;

/// Uses the same writer and the same mount as every layer.
pub(super) fn probe(dir: &Path) -> Result<(), RootsError> {
    let (tar, index) = layer()
        .map_err(|source| RootsError::Index { index: dir.to_owned(), source: Box::new(source) })?;
    let failed = |action| move |source| RootsError::Io { action, path: dir.to_owned(), source };
    let [tar, index] = [tar, index].map(|bytes| nameless(dir, &bytes));
    let (tar, index) = (
        tar.map_err(failed("make a temporary file in"))?,
        index.map_err(failed("make a temporary file in"))?,
    );
    let mounted = mount(&LayerSource { index: path(&index), devices: vec![path(&tar)] })?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut found = Vec::new();
    openat(&mounted, NAME, flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|file| File::from(file).read_to_end(&mut found))
        .map_err(failed("read through an EROFS mount in"))?;
    if found == CONTENT {
        return Ok(());
    }
    let wrong = io::Error::other(format!("{} other bytes came", found.len()));
    Err(failed("read through an EROFS mount in")(wrong))
}

/// A file that is gone with its descriptor.
fn nameless(dir: &Path, bytes: &[u8]) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    Ok(file)
}

fn path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A tar with one file, and its index.
fn layer() -> Result<(Vec<u8>, Vec<u8>), LayerError> {
    let mut tar = header().to_vec();
    tar.extend_from_slice(CONTENT);
    tar.resize(tar.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    let read = read_layer(tar.as_slice(), io::sink(), &Limits::default())?;
    let mut index = Cursor::new(Vec::new());
    write_index(&read.tree, read.diff_id, read.tar_size, &[], &mut index)?;
    Ok((tar, index.into_inner()))
}

/// The header of the file, as POSIX ustar.
fn header() -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, NAME.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", CONTENT.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
