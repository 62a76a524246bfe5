//! The lowest layer of every root: the directories and empty files that the runtime mounts on.
//!
//! As a layer below the image they exist whatever the image has, and never become part of an upper.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::RootsError;

/// Changes with the content, so that a newer version never meets an older skeleton.
const NAME: &str = "skeleton-v1";

/// Directories with their modes, parents first.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o755),
    ("run", 0o755),
    ("run/kiln", 0o755),
    ("sbin", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("workspace", 0o755),
];

/// Empty files with their modes. The agent has one wherever an image's `/sbin` may lead to.
const FILES: &[(&str, u32)] = &[
    ("etc/hostname", 0o644),
    ("etc/hosts", 0o644),
    ("etc/resolv.conf", 0o644),
    ("run/kiln/ca.crt", 0o644),
    ("sbin/agent", 0o755),
    ("usr/bin/agent", 0o755),
    ("usr/sbin/agent", 0o755),
];

/// The skeleton below `data_dir`, made if it is not there.
pub(crate) fn ensure(data_dir: &Path) -> Result<PathBuf, RootsError> {
    let path = data_dir.join(NAME);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => return Ok(path),
        Ok(_) => {
            return Err(RootsError::Io {
                action: "use as the lowest layer (it is not a directory)",
                path,
                source: io::ErrorKind::NotADirectory.into(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(RootsError::Io { action: "look at", path, source }),
    }
    let draft = data_dir.join(format!(".{NAME}.{}", std::process::id()));
    let made = make(&draft).and_then(|()| match fs::rename(&draft, &path) {
        // Somebody else was faster; theirs has the same content.
        Err(_) if path.is_dir() => fs::remove_dir_all(&draft).map_err(|source| RootsError::Io {
            action: "remove",
            path: draft.clone(),
            source,
        }),
        Err(source) => Err(RootsError::Io { action: "put in place", path: path.clone(), source }),
        Ok(()) => Ok(()),
    });
    if let Err(error) = made {
        let _ = fs::remove_dir_all(&draft);
        return Err(error);
    }
    Ok(path)
}

fn make(draft: &Path) -> Result<(), RootsError> {
    let at = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| RootsError::Io { action, path, source }
    };
    if draft.exists() {
        fs::remove_dir_all(draft).map_err(at("remove", draft))?;
    }
    fs::create_dir_all(draft).map_err(at("make", draft))?;
    fs::set_permissions(draft, Permissions::from_mode(0o755))
        .map_err(at("set the mode of", draft))?;
    let mut made = vec![draft.to_owned()];
    for (name, mode) in DIRECTORIES {
        let path = draft.join(name);
        fs::create_dir(&path).map_err(at("make", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(*mode))
            .map_err(at("set the mode of", &path))?;
        made.push(path);
    }
    for (name, mode) in FILES {
        let path = draft.join(name);
        let file = File::create_new(&path).map_err(at("make", &path))?;
        file.set_permissions(Permissions::from_mode(*mode))
            .map_err(at("set the mode of", &path))?;
        made.push(path);
    }
    // Times are visible inside; a fixed one makes all roots alike. Children before their parents.
    for path in made.iter().rev() {
        File::open(path)
            .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH))
            .map_err(at("set the time of", path))?;
    }
    Ok(())
}
