//! Making and removing directories, removing files.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use kiln_protocol::FileErrorKind;

use super::failure::FileError;
use super::tree;

/// Permission bits of a directory, when nobody says.
const DIRECTORY_MODE: u32 = 0o755;

/// Makes a directory and its parents, for the owner of the nearest directory that is there.
/// Parents get the default mode. Paths can have thousands of components, so nothing here recurses.
pub(super) fn mkdir(path: &Path, mode: Option<u32>) -> Result<(), FileError> {
    let mut missing = Vec::new();
    let mut nearest = Some(path);
    while let Some(directory) = nearest {
        match fs::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => break,
            Ok(_) if missing.is_empty() => {
                return Err(FileError::new(FileErrorKind::AlreadyExists, "it is there, as a file"));
            }
            Ok(_) => {
                let message = format!("{} is not a directory", directory.display());
                return Err(FileError::new(FileErrorKind::NotADirectory, message));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push(directory),
            Err(error) => return Err(error.into()),
        }
        nearest = directory.parent();
    }
    while let Some(directory) = missing.pop() {
        make(directory, if missing.is_empty() { mode } else { None })?;
    }
    Ok(())
}

fn make(path: &Path, mode: Option<u32>) -> Result<(), FileError> {
    match fs::create_dir(path) {
        // Somebody else was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {
            return Ok(());
        }
        other => other?,
    }
    own_as_parent(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode.unwrap_or(DIRECTORY_MODE) & 0o7777))?;
    Ok(())
}

/// Gives something new to the owner of the directory that it is in; where the agent may not, it
/// stays the agent's own.
pub(super) fn own_as_parent(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let (own, parent) = (fs::symlink_metadata(path)?, fs::metadata(parent)?);
    if (own.uid(), own.gid()) != (parent.uid(), parent.gid()) {
        match chown(path, Some(parent.uid()), Some(parent.gid())) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    Ok(())
}

/// Removes a file, a symbolic link itself, or a directory; links inside it are not followed.
pub(super) fn remove(path: &Path, recursive: bool) -> Result<(), FileError> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(fs::remove_file(path)?);
    }
    if fs::canonicalize(path)? == Path::new("/") {
        return Err(FileError::new(FileErrorKind::InvalidArgument, "it is the root directory"));
    }
    if recursive { Ok(tree::remove(path)?) } else { Ok(fs::remove_dir(path)?) }
}
