//! A real Debian: our index in the kernel against GNU tar's extraction and against `mkfs.erofs`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_layer::{DevicePolicy, Index, IndexOptions, Limits};

use crate::fixtures::{ErofsUtils, debian_base};
use crate::kernel::{Mount, can_mount};
use crate::snapshot::{Kind, Tree, assert_same, of_directory};

/// A directory for extracted trees: on a disk, since they need xattrs and device nodes.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Indexes `tar` into `dir`, with its device nodes.
fn index_file(tar: &Path, dir: &Path) -> PathBuf {
    let layer = kiln_layer::read_tar_file(&File::open(tar).unwrap(), &Limits::default()).unwrap();
    let path = dir.join("index");
    let mut out = File::create(&path).unwrap();
    let options = IndexOptions { devices: DevicePolicy::Keep };
    let (tree, diff_id, size) = (&layer.tree, layer.diff_id, layer.tar_size);
    kiln_layer::write_index_with(tree, diff_id, size, &[], &options, &mut out).unwrap();
    assert_eq!(Index::open(&path).unwrap().devices(), [diff_id]);
    path
}

/// Extracts `tar` with GNU tar, attributes and all. With `-P` it makes symlinks at once; without, it makes
/// those that lead outside at the end, even if a later entry has replaced them.
pub(crate) fn gnu_extract(tar: &Path, into: &Path) {
    let status = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-P", "-xpf"])
        .arg(tar)
        .arg("-C")
        .arg(into)
        .status()
        .unwrap();
    assert!(status.success(), "tar -x {}", tar.display());
}

/// `fsck.erofs` finds nothing. Its 1.8 reads past the end of 512-byte superblocks when they have a
/// checksum, so it gets a copy without; the kernel has checked ours when it mounted.
pub(crate) fn fsck(tools: &ErofsUtils, index: &Path, tars: &[&Path]) {
    let mut bytes = std::fs::read(index).unwrap();
    bytes[1024 + 8] &= !1;
    bytes[1024 + 4..1024 + 8].fill(0);
    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(copy.path(), bytes).unwrap();
    let mut args: Vec<String> =
        tars.iter().map(|tar| format!("--device={}", tar.display())).collect();
    args.extend(["--extract".to_owned(), copy.path().display().to_string()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = tools.run("fsck.erofs", &args);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "fsck.erofs: {log}");
}

#[test]
fn debian_in_the_kernel_is_what_gnu_tar_extracts() {
    let Some(tar) = debian_base().filter(|_| can_mount()) else { return };
    let dir = scratch();
    let extracted = dir.path().join("extracted");
    std::fs::create_dir(&extracted).unwrap();
    gnu_extract(&tar, &extracted);
    let index = index_file(&tar, dir.path());
    let mount = Mount::erofs(&index, &[&tar]);
    let (ours, theirs) = (of_directory(&mount.path()), of_directory(&extracted));
    assert!(ours.len() > 5_000, "{} entries", ours.len());
    assert_same(&ours, &theirs);
}

#[test]
fn debian_in_the_kernel_is_what_the_reference_shows() {
    let (Some(tar), Some(tools)) = (debian_base(), ErofsUtils::get()) else { return };
    if !can_mount() {
        return;
    }
    let dir = scratch();
    let index = index_file(&tar, dir.path());
    fsck(&tools, &index, &[&tar]);
    let reference = dir.path().join("reference");
    make_reference(&tools, &tar, &reference);
    let ours = of_directory(&Mount::erofs(&index, &[&tar]).path());
    let mut theirs = of_directory(&Mount::erofs(&reference, &[&tar]).path());
    // Its 1.8 stores whole seconds only.
    for (path, node) in &mut theirs {
        node.mtime.1 = ours[path].mtime.1;
    }
    assert_same(&ours, &theirs);
}

/// Whiteouts, opaque directories and odd types against `mkfs.erofs --tar=i --aufs`.
#[test]
fn marks_are_those_of_the_reference() {
    use crate::archive::{Archive, index};
    let Some(tools) = ErofsUtils::get().filter(|_| can_mount()) else { return };
    let layer = index(
        Archive::new()
            .dir("./")
            .dir("./a/")
            .file("./a/.wh.gone", b"")
            .dir("./b/")
            .file("./b/.wh..wh..opq", b"")
            .file("./b/kept", b"content")
            .hardlink("./b/second", "./b/kept")
            .symlink("./link", "a/b")
            .fifo("./fifo")
            .device(tar::EntryType::Char, "./null", 1, 3)
            .device(tar::EntryType::Block, "./disk", 259, 70_000)
            .pax(&[
                (b"SCHILY.xattr.user.k", b"v"),
                (b"SCHILY.xattr.security.capability", CAPABILITY),
            ])
            .file("./program", b"#!")
            .end(),
    );
    let dir = scratch();
    let (ours, tar) = layer.store(dir.path());
    fsck(&tools, &ours, &[&tar]);
    let reference = dir.path().join("reference");
    make_reference(&tools, &tar, &reference);
    let ours = of_directory(&Mount::erofs(&ours, &[&tar]).path());
    let mut theirs = of_directory(&Mount::erofs(&reference, &[&tar]).path());
    // A whiteout has no attributes of its own; the reference keeps those of the marker.
    let strip = |tree: &mut Tree| {
        for node in tree.values_mut().filter(|node| node.kind == Kind::Whiteout) {
            (node.mode, node.mtime) = (0, (0, 0));
        }
    };
    strip(&mut theirs);
    assert_eq!(ours[&b"a/gone"[..]].kind, Kind::Whiteout);
    assert_eq!(ours[&b"b"[..]].xattrs[&b"trusted.overlay.opaque"[..]], b"y");
    assert_same(&ours, &theirs);
}

/// `cap_net_raw+ep` as the kernel stores it, with a newline byte in it.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0";

fn make_reference(tools: &ErofsUtils, tar: &Path, index: &Path) {
    let (index, tar) = (index.to_str().unwrap(), tar.to_str().unwrap());
    let args = ["--quiet", "--tar=i", "--aufs", "-T0", "--mkfs-time", index, tar];
    let output = tools.run("mkfs.erofs", &args);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mkfs.erofs: {log}");
}
