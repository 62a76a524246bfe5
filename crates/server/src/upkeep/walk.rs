//! Bytes on the disk, as `du` counts them.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file, or a directory with all that is in it and on its file system. A file with several names
/// counts once; what goes away meanwhile does not count.
pub(super) fn bytes(path: &Path) -> u64 {
    bytes_without(path, &|_| false)
}

/// The same, without what `skip` says yes to, and all below it.
pub(super) fn bytes_without(path: &Path, skip: &dyn Fn(&Path) -> bool) -> u64 {
    let Ok(top) = fs::symlink_metadata(path) else { return 0 };
    let mut total = 0;
    let mut linked = HashSet::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.dev() != top.dev() || skip(&path) {
            continue;
        }
        if found.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(entries.map(|entry| entry.path()));
        } else if found.nlink() > 1 && !linked.insert(found.ino()) {
            continue;
        }
        total += found.blocks() * 512;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_as_du_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/file"), vec![1; 70_000]).unwrap();
        fs::hard_link(path("a/b/file"), path("again")).unwrap();
        fs::write(path("small"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", path("link")).unwrap();
        fs::File::create(path("sparse")).unwrap().set_len(1 << 30).unwrap();
        let du = std::process::Command::new("du")
            .args(["-s", "--block-size=1"])
            .arg(directory.path())
            .output()
            .unwrap();
        let du = String::from_utf8(du.stdout).unwrap();
        let du: u64 = du.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(bytes(directory.path()), du);
        let skipped = bytes(&path("a"));
        let rest = bytes_without(directory.path(), &|found| found == path("a"));
        let shared = fs::metadata(path("again")).unwrap().blocks() * 512;
        assert_eq!(rest, du - skipped + shared);
    }
}
