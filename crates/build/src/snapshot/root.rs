//! The root directory that a fresh upper begins with: that of the layer below it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use kiln_layer::{Index, LayerError, Xattr};
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

/// Owner, mode and the xattrs of an image, sorted. Times do not count: a look into a directory is no
/// change of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Root {
    owner: (u32, u32),
    mode: u32,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The root of the layer with the index `below`; of a new upper when there is no layer.
pub(super) fn root_of(below: Option<&Path>) -> Result<Root, LayerError> {
    let Some(below) = below else {
        return Ok(Root { owner: (0, 0), mode: 0o755, xattrs: Vec::new() });
    };
    let index = Index::open(below)?;
    let root = index.inode(index.root_ino())?;
    let xattrs = root.xattrs.into_iter().filter(|xattr| Xattr::is_of_image(&xattr.name));
    Ok(Root {
        owner: (root.uid, root.gid),
        mode: root.mode,
        xattrs: xattrs.map(|xattr| (xattr.name, xattr.value)).collect(),
    })
}

impl Root {
    /// Whether `directory` has the same attributes.
    pub(super) fn is_that_of(&self, directory: &Path) -> io::Result<bool> {
        let found = std::fs::symlink_metadata(directory)?;
        let mut names = vec![0_u8; 64 << 10];
        let length = match llistxattr(directory, &mut names) {
            Err(Errno::OPNOTSUPP) => 0,
            other => other?,
        };
        let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let mut xattrs = Vec::new();
        for name in names.filter(|name| Xattr::is_of_image(name)) {
            let mut value = vec![0_u8; 64 << 10];
            let length = lgetxattr(directory, name, &mut value)?;
            value.truncate(length);
            xattrs.push((name.to_vec(), value));
        }
        xattrs.sort_unstable();
        let owner = (found.uid(), found.gid());
        Ok(*self == Self { owner, mode: found.mode() & 0o7777, xattrs })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_change_of_the_root_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let found = fs::metadata(dir.path()).unwrap();
        let mut root = root_of(None).unwrap();
        root.owner = (found.uid(), found.gid());
        assert!(root.is_that_of(dir.path()).unwrap());
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(!root.is_that_of(dir.path()).unwrap());
        root.mode = 0o700;
        assert!(root.is_that_of(dir.path()).unwrap());
        root.xattrs.push((b"user.x".to_vec(), b"y".to_vec()));
        assert!(!root.is_that_of(dir.path()).unwrap());
    }
}
