//! Files of the host that no layer may touch, and places where none may appear.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The word in every name that the cases try to make.
pub(super) const EVIL: &str = "kiln-evil";

/// Where names with [`EVIL`] in them would appear if an absolute or relative name escaped.
const PLACES: [&str; 8] = ["/", "/tmp", "/etc", "/root", "/var", "/var/tmp", "/dev/shm", "/work"];

/// Two directories whose every detail is known, and the names at the places that names escape to.
pub(super) struct Canary {
    directories: [PathBuf; 2],
    before: BTreeMap<PathBuf, String>,
    _owned: TempDir,
}

impl Canary {
    /// `beside`: where to put one of them; the other is below `/tmp`.
    pub(super) fn new(beside: &Path) -> Self {
        let owned = tempfile::Builder::new().prefix("kiln-canary-").tempdir().unwrap();
        let directories = [owned.path().to_owned(), beside.to_owned()];
        for directory in &directories {
            fs::create_dir_all(directory.join("inside")).unwrap();
            // Anybody may write: what keeps a layer out is not a permission.
            for open in [directory.clone(), directory.join("inside")] {
                fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
            }
            fs::write(directory.join("secret"), "of the host").unwrap();
            fs::write(directory.join("inside/f"), "of the host, too").unwrap();
            fs::set_permissions(directory.join("secret"), fs::Permissions::from_mode(0o666))
                .unwrap();
        }
        let mut canary = Self { directories, before: BTreeMap::new(), _owned: owned };
        canary.before = canary.look();
        canary
    }

    /// The absolute path of the one below `/tmp`.
    pub(super) fn path(&self) -> &str {
        self.directories[0].to_str().unwrap()
    }

    /// The first difference to the beginning.
    pub(super) fn change(&self) -> Option<String> {
        let now = self.look();
        let changed = now.iter().find(|(path, what)| self.before.get(*path) != Some(what));
        let gone = || self.before.keys().find(|path| !now.contains_key(*path));
        match changed {
            Some((path, what)) => {
                Some(format!("{}: {what}, was {:?}", path.display(), self.before.get(path)))
            }
            None => gone().map(|path| format!("{} is gone", path.display())),
        }
    }

    fn look(&self) -> BTreeMap<PathBuf, String> {
        let mut seen = BTreeMap::new();
        let mut open: Vec<PathBuf> = self.directories.to_vec();
        while let Some(path) = open.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                String::new()
            } else {
                fs::read_to_string(&path).unwrap()
            };
            // The time of the last status change shows links, owners, modes and xattrs as well.
            let what = format!(
                "inode {} mode {:o} links {} owner {}:{} changed {}.{} modified {}.{} {content:?}",
                metadata.ino(),
                metadata.mode(),
                metadata.nlink(),
                metadata.uid(),
                metadata.gid(),
                metadata.ctime(),
                metadata.ctime_nsec(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            );
            seen.insert(path, what);
        }
        let beside = self.directories[1].parent().unwrap().to_owned();
        for place in PLACES.iter().map(PathBuf::from).chain([beside]) {
            for entry in fs::read_dir(place).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().contains(EVIL) {
                    seen.insert(entry.path(), "is there".to_owned());
                }
            }
        }
        seen
    }
}
