//! GNU tar, which extracts into a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use super::listing::{Attributes, Listing, Node};
use super::ours::hex;

/// What `archive` is when it is extracted below `scratch`, or why it is refused.
pub(super) fn read(archive: &Path, scratch: &Path) -> Result<Listing, String> {
    let directory = scratch.join("gnu");
    fs::create_dir(&directory).expect("the directory of the test can be written");
    let output = Command::new("timeout")
        .args(["20", "tar", "--extract", "--numeric-owner", "--same-owner", "--same-permissions"])
        .args(["--xattrs", "--xattrs-include=user.*", "--warning=no-timestamp"])
        .args(["--delay-directory-restore", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(&directory)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .expect("GNU tar is installed");
    let result = if output.status.success() {
        Ok(list(&directory))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    remove(&directory);
    result
}

/// Modes of what was extracted may forbid what root alone may still do.
fn remove(directory: &Path) {
    fs::remove_dir_all(directory).expect("what was extracted can be removed");
}

/// Everything below `directory`, as the kernel says.
pub(super) fn list(directory: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut open = vec![(Vec::new(), directory.to_owned())];
    while let Some((name, path)) = open.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it was just listed");
        let kind = metadata.file_type();
        let mut node = Node {
            kind: 'f',
            attributes: Some(Attributes {
                mode: metadata.mode() & 0o7777,
                uid: metadata.uid().into(),
                gid: metadata.gid().into(),
                mtime: metadata.mtime() as f64 + metadata.mtime_nsec() as f64 / 1e9,
                xattrs: xattrs(&path),
            }),
            content: None,
            size: metadata.len(),
            target: None,
            device: None,
            same: Vec::new(),
        };
        if kind.is_dir() {
            node.kind = 'd';
            for entry in fs::read_dir(&path).expect("it is a directory") {
                let entry = entry.expect("it can be read");
                let name = [&name[..], b"/", entry.file_name().as_bytes()].concat();
                open.push((name, entry.path()));
            }
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).expect("it is a symlink");
            (node.kind, node.target) = ('l', Some(target.as_os_str().as_bytes().to_vec()));
        } else if kind.is_char_device() || kind.is_block_device() {
            let device = (
                u64::from(rustix::fs::major(metadata.rdev())),
                u64::from(rustix::fs::minor(metadata.rdev())),
            );
            node.kind = if kind.is_char_device() { 'c' } else { 'b' };
            node.device = Some(device);
        } else if kind.is_fifo() {
            node.kind = 'p';
        } else {
            let data = fs::read(&path).expect("root may read it");
            node.content = Some(hex(&Sha256::digest(&data)));
        }
        if node.kind != 'd' {
            let same = first.entry(metadata.ino()).or_insert_with(|| name.clone());
            if name < *same {
                same.clone_from(&name);
            }
        }
        node.same = metadata.ino().to_be_bytes().to_vec();
        listing.insert(name, node);
    }
    for node in listing.values_mut().filter(|node| node.kind != 'd') {
        let inode = u64::from_be_bytes(node.same[..].try_into().expect("it was put there"));
        node.same.clone_from(&first[&inode]);
    }
    listing
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..len].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("it is listed");
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect()
}
