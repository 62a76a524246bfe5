//! What a mounted root shows, as text that can be compared.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_types::Digest;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, lgetxattr, llistxattr, openat, readlinkat, statat,
};

use crate::{LayerSource, Roots};

/// Mounts `layers` below the upper `upper`, which is there and empty, and lists all that the root shows:
/// one line for each name, in byte order. Needs root.
pub fn listing(
    roots: &Roots,
    layers: &[LayerSource],
    upper: &str,
    userns: BorrowedFd<'_>,
    base: u32,
) -> Vec<String> {
    let root = roots.mount(layers, upper, userns, base, false).expect("mount");
    let mut lines = Vec::new();
    let mut groups = HashMap::new();
    // A mount's own descriptor cannot be read from.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(&root, ".", flags, Mode::empty()).expect("open");
    lines.push(line(&root, OsStr::new("."), Path::new("."), &mut groups));
    // Opened name by name: paths may be longer than the kernel takes at once.
    walk(&root, Path::new(""), &mut lines, &mut groups);
    lines
}

fn walk(
    directory: &OwnedFd,
    path: &Path,
    lines: &mut Vec<String>,
    groups: &mut HashMap<u64, usize>,
) {
    let mut names: Vec<Vec<u8>> = Dir::read_from(directory)
        .expect("read the directory")
        .map(|entry| entry.expect("entry").file_name().to_bytes().to_vec())
        .filter(|name| !matches!(name.as_slice(), b"." | b".."))
        .collect();
    names.sort_unstable();
    for name in names {
        let name = OsStr::from_bytes(&name);
        let below = path.join(name);
        lines.push(line(directory, name, &below, groups));
        let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).expect("listed");
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = openat(directory, name, flags, Mode::empty()).expect("open");
            walk(&inner, &below, lines, groups);
        }
    }
}

fn line(
    directory: &OwnedFd,
    name: &OsStr,
    path: &Path,
    groups: &mut HashMap<u64, usize>,
) -> String {
    let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).expect("listed, so there");
    let kind = FileType::from_raw_mode(found.st_mode);
    let next = groups.len();
    // Inode numbers differ between file systems; which names share one must not.
    let group = match kind {
        FileType::Directory => String::new(),
        _ => format!(" group {} of {}", groups.entry(found.st_ino).or_insert(next), found.st_nlink),
    };
    format!(
        "{} {kind:?} {:04o} {}:{} {}.{:09}{group}{}{}",
        path.as_os_str().as_bytes().escape_ascii(),
        found.st_mode & 0o7777,
        found.st_uid,
        found.st_gid,
        found.st_mtime,
        found.st_mtime_nsec,
        content(directory, name, kind, &found),
        xattrs(directory, name),
    )
}

fn content(directory: &OwnedFd, name: &OsStr, kind: FileType, found: &Stat) -> String {
    match kind {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(directory, name, flags, Mode::empty()).expect("open");
            let mut bytes = Vec::new();
            File::from(file).read_to_end(&mut bytes).expect("read");
            assert_eq!(bytes.len() as u64, found.st_size.cast_unsigned(), "{}", name.display());
            format!(" size {} {}", bytes.len(), Digest::of(&bytes))
        }
        FileType::Symlink => {
            let target = readlinkat(directory, name, Vec::new()).expect("readlink");
            format!(" size {} -> {target:?}", found.st_size)
        }
        FileType::CharacterDevice | FileType::BlockDevice => format!(" device {}", found.st_rdev),
        _ => String::new(),
    }
}

fn xattrs(directory: &OwnedFd, name: &OsStr) -> String {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    path.push(name);
    let mut names = vec![0_u8; 64 << 10];
    let length = llistxattr(&path, &mut names).expect("list the xattrs");
    let mut names: Vec<&[u8]> =
        names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut value = vec![0_u8; 64 << 10];
    let mut text = String::new();
    for name in names {
        let length = lgetxattr(&path, name, &mut value).expect("an xattr that is listed");
        let value = value[..length].escape_ascii();
        text.extend([" ", &String::from_utf8_lossy(name), "=", &value.to_string()]);
    }
    text
}
