//! Describing and listing.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use kiln_protocol::{Channel, Entry, EntryKind, FileErrorKind, Reply, Text};

use super::failure::FileError;
use super::{blocking, done};
use crate::stream::Stream;

/// The most entries of a directory that is listed: what the agent holds of it counts as the sandbox's
/// memory.
const MOST: usize = 250_000;
/// Entries that are described at a time.
const PIECE: usize = 512;

/// Describes a file; a symbolic link is not followed.
pub(super) fn describe(path: &Path) -> Result<Entry, FileError> {
    let metadata = fs::symlink_metadata(path)?;
    // `.`, `..` and `/` have no last component; the path as given names them well enough.
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok(entry(path, name.into(), &metadata))
}

fn entry(path: &Path, name: Text, metadata: &Metadata) -> Entry {
    let kind = match metadata.file_type() {
        kind if kind.is_file() => EntryKind::File,
        kind if kind.is_dir() => EntryKind::Directory,
        kind if kind.is_symlink() => EntryKind::Symlink,
        _ => EntryKind::Other,
    };
    let target = (kind == EntryKind::Symlink).then(|| fs::read_link(path).ok()).flatten();
    Entry {
        name,
        kind,
        size: metadata.size(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified: metadata.mtime(),
        target: target.map(|target| target.into_os_string().into()),
    }
}

/// Lists a directory, by name: all names first, then piece by piece what they stand for, so that the
/// agent holds little of a large directory.
pub(super) async fn list(stream: &Rc<Stream>, path: PathBuf) -> Result<Reply, FileError> {
    let (mut path, names) = blocking(move || names(&path).map(|names| (path, names))).await?;
    let mut names = names.into_iter();
    loop {
        let piece: Vec<OsString> = names.by_ref().take(PIECE).collect();
        if piece.is_empty() {
            return Ok(done());
        }
        if stream.is_unwanted() {
            return Err(FileError::new(FileErrorKind::Aborted, "the host stopped reading"));
        }
        let (back, lines) = blocking(move || {
            let lines = lines(&path, &piece)?;
            Ok((path, lines))
        })
        .await?;
        path = back;
        stream.data(Channel::Output, lines).await;
    }
}

fn names(path: &Path) -> Result<Vec<OsString>, FileError> {
    let mut names = Vec::new();
    for item in fs::read_dir(path)? {
        names.push(item?.file_name());
        if names.len() > MOST {
            let message = format!("it has more than {MOST} entries; list it by a command");
            return Err(FileError::new(FileErrorKind::TooLarge, message));
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn lines(directory: &Path, names: &[OsString]) -> Result<Bytes, FileError> {
    let mut lines = Vec::new();
    for name in names {
        let path = directory.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => {
                serde_json::to_writer(
                    &mut lines,
                    &entry(&path, name.as_os_str().into(), &metadata),
                )
                .map_err(|error| FileError::new(FileErrorKind::Other, error.to_string()))?;
                lines.push(b'\n');
            }
            // Gone since the directory was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::at(&path, error)),
        }
    }
    Ok(lines.into())
}
