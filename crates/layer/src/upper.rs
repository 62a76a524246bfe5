//! Upper directory of an overlayfs mount → canonical layer tar.

mod archive;
mod scan;
mod xattrs;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use kiln_types::DiffId;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};

use crate::error::LayerError;
use crate::limits::Limits;
use crate::name::Printable;

use archive::{Archive, MemberType};
use scan::{Found, FoundKind, Scan};

/// What is taken out of an upper directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpperOptions {
    /// Paths from the upper directory that are left out with everything below them.
    pub exclude: Vec<PathBuf>,
    /// Bytes of files, holes counted in full: a layer tar is never sparse.
    pub max_apparent_size: u64,
    /// What a reader of the tar will accept; entries beyond it are refused here already.
    pub limits: Limits,
}

impl Default for UpperOptions {
    fn default() -> Self {
        Self { exclude: Vec::new(), max_apparent_size: 64 << 30, limits: Limits::default() }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpperReport {
    /// SHA-256 of the tar.
    pub diff_id: DiffId,
    /// Bytes of the tar.
    pub tar_size: u64,
    /// Sockets, which a layer cannot hold.
    pub skipped_sockets: u64,
    /// Members of the tar, extension headers not counted.
    pub entries: u64,
}

/// Writes the layer tar of the overlayfs upper directory `upper`.
///
/// The same tree gives the same bytes. The directory itself is always the first member (`./`). Nothing may
/// change the directory meanwhile: a file that changes while it is read is an error. All is found and
/// checked before the first byte is written. `out` is flushed, not synced; after an error its content is of
/// no use.
///
/// # Errors
/// Refused are marks of overlayfs that a layer cannot express (redirects, data-less files), names that start
/// with `.wh.`, and what exceeds the options; the error names the path.
pub fn write_upper_tar(
    upper: impl AsRef<Path>,
    out: impl Write,
    options: &UpperOptions,
) -> Result<UpperReport, LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper.as_ref(), flags, Mode::empty()).map_err(|error| {
        let path = upper.as_ref().display().to_string();
        LayerError::ReadUpper { operation: "open the root", path, source: error.into() }
    })?;
    let Scan { found, skipped_sockets, .. } = scan::scan(&root, options)?;
    let mut archive = Archive::new(out);
    for entry in &found {
        write_entry(&root, entry, &mut archive)?;
    }
    let entries = archive.members();
    let (diff_id, tar_size) = archive.finish().map_err(LayerError::WriteTar)?;
    Ok(UpperReport { diff_id, tar_size, skipped_sockets, entries })
}

fn write_entry<W: Write>(
    root: &OwnedFd,
    entry: &Found,
    archive: &mut Archive<W>,
) -> Result<(), LayerError> {
    let path = &entry.path[..];
    let attributes = &entry.attributes;
    let mut member = |path: &[u8], kind: MemberType<'_>| {
        archive.member(path, attributes, kind).map_err(LayerError::WriteTar)
    };
    match &entry.kind {
        FoundKind::Whiteout(name) => archive.marker(name).map_err(LayerError::WriteTar),
        FoundKind::Directory { opaque } => {
            let mut path = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
            path.push(b'/');
            member(&path, MemberType::Directory)?;
            if *opaque {
                let prefix: &[u8] = if entry.path.is_empty() { b"" } else { &path };
                let name = [prefix, b".wh..wh..opq"].concat();
                archive.marker(&name).map_err(LayerError::WriteTar)?;
            }
            Ok(())
        }
        FoundKind::File { size, .. } => {
            member(path, MemberType::File(*size))?;
            copy_file(root, entry, *size, archive)
        }
        FoundKind::Hardlink(target) => member(path, MemberType::Hardlink(target)),
        FoundKind::Symlink(target) => member(path, MemberType::Symlink(target)),
        FoundKind::CharDevice(number) => member(path, MemberType::CharDevice(*number)),
        FoundKind::BlockDevice(number) => member(path, MemberType::BlockDevice(*number)),
        FoundKind::Fifo => member(path, MemberType::Fifo),
    }
}

/// Copies exactly the announced bytes of a file that is still the one that was found.
fn copy_file<W: Write>(
    root: &OwnedFd,
    entry: &Found,
    size: u64,
    archive: &mut Archive<W>,
) -> Result<(), LayerError> {
    let failed = |operation: &'static str| {
        move |source: std::io::Error| LayerError::ReadUpper {
            operation,
            path: Printable(&entry.path).to_string(),
            source,
        }
    };
    let changed = || LayerError::UpperEntry {
        path: Printable(&entry.path).to_string(),
        problem: "it changed while it was read; stop or freeze what writes to it".to_owned(),
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = File::from(scan::open_below(root, &entry.path, flags).map_err(failed("open"))?);
    let is_same = |file: &File| -> Result<bool, LayerError> {
        let stat = rustix::fs::fstat(file).map_err(|error| failed("inspect")(error.into()))?;
        Ok(entry.kind == FoundKind::file(&stat))
    };
    if !is_same(&file)? {
        return Err(changed());
    }
    let mut chunk = vec![0; size.clamp(1, 256 << 10) as usize];
    let mut left = size;
    while left > 0 {
        let want = left.min(chunk.len() as u64) as usize;
        let read = match file.read(&mut chunk[..want]) {
            Ok(0) => return Err(changed()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            result => result.map_err(failed("read"))?,
        };
        archive.data(&chunk[..read]).map_err(LayerError::WriteTar)?;
        left -= read as u64;
    }
    if !is_same(&file)? {
        return Err(changed());
    }
    archive.end_data().map_err(LayerError::WriteTar)
}
