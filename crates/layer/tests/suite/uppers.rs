//! Upper directories → tars → layers.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kiln_layer::{LayerError, Limits, UpperOptions, UpperReport, write_upper_tar};
use kiln_types::{DiffId, Digest};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, mknodat,
    setxattr, utimensat,
};

use crate::archive::{Archive, Indexed, index, index_on};
use crate::debian::{gnu_extract, scratch};
use crate::kernel::{Mount, can_mount};
use crate::snapshot::{Kind, assert_same, of_directory};

fn write(upper: &Path, options: &UpperOptions) -> Result<(Vec<u8>, UpperReport), LayerError> {
    let mut tar = Vec::new();
    let report = write_upper_tar(upper, &mut tar, options)?;
    assert_eq!(report.diff_id, DiffId(Digest::of(&tar)));
    assert_eq!(report.tar_size, tar.len() as u64);
    Ok((tar, report))
}

fn write_all(upper: &Path) -> (Vec<u8>, UpperReport) {
    write(upper, &UpperOptions::default()).unwrap()
}

fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn make_node(path: &Path, kind: FileType, major: u32, minor: u32) {
    let device = rustix::fs::makedev(major, minor);
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device).unwrap();
}

/// Whether device nodes, owners and trusted xattrs can be made.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIP the test makes device nodes, which needs root");
    }
    root
}

/// A bit of everything that a file system can hold.
fn make_everything(root: &Path) {
    let long = "long-".repeat(50);
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::create_dir(root.join(&long)).unwrap();
    fs::write(root.join(&long).join(&long), b"below long names").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"bin\xff\xfe\ne")), b"odd").unwrap();
    fs::write(root.join("dir/file"), vec![7; 5000]).unwrap();
    fs::write(root.join("dir/empty"), b"").unwrap();
    fs::hard_link(root.join("dir/file"), root.join("dir/sub/link")).unwrap();
    fs::hard_link(root.join("dir/file"), root.join("another")).unwrap();
    symlink("dir/file", root.join("symlink")).unwrap();
    symlink("t".repeat(300), root.join("long-symlink")).unwrap();
    symlink("/etc/passwd", root.join("absolute")).unwrap();
    rustix::fs::linkat(CWD, root.join("symlink"), CWD, root.join("symlink2"), AtFlags::empty())
        .unwrap();
    make_node(&root.join("fifo"), FileType::Fifo, 0, 0);
    make_node(&root.join("null"), FileType::CharacterDevice, 1, 3);
    make_node(&root.join("disk"), FileType::BlockDevice, 259, 70_000);
    fs::write(root.join("program"), b"#!").unwrap();
    chownat(
        CWD,
        root.join("program"),
        Some(Uid::from_raw(70_000)),
        Some(Gid::from_raw(3_000_000_000)),
        AtFlags::empty(),
    )
    .unwrap();
    fs::set_permissions(root.join("program"), fs::Permissions::from_mode(0o6755)).unwrap();
    set_xattr(
        &root.join("program"),
        "security.capability",
        b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0",
    );
    set_xattr(&root.join("program"), "user.a=b%c", b"1\n2\0");
    set_xattr(&root.join("dir"), "user.empty", b"");
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (1 << 20) - 3).unwrap();
    fs::set_permissions(root.join("dir/sub"), fs::Permissions::from_mode(0o1777)).unwrap();
    set_mtime(&root.join("dir/file"), 1_700_000_000, 123_456_789);
    set_mtime(&root.join("dir/empty"), -5, 250_000_000);
    set_mtime(&root.join("symlink"), 1_600_000_000, 1);
    set_mtime(&root.join("dir/sub"), 1_500_000_000, 0);
    set_mtime(&root.join("dir"), 1 << 33, 5);
    fs::set_permissions(root, fs::Permissions::from_mode(0o751)).unwrap();
    set_mtime(root, 1_400_000_000, 77);
}

#[test]
fn a_directory_survives_the_way_through_tar_and_index() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    make_everything(&upper);
    let (tar, report) = write_all(&upper);
    assert_eq!(report.entries as usize, of_directory(&upper).len());
    let indexed = index(tar);
    assert!(!indexed.layer.tree.needs_parents(), "the root is always described");
    assert!(indexed.layer.tree.dropped().is_empty());
    assert_same(&crate::properties::shown(&indexed), &of_directory(&upper));

    let extracted = dir.path().join("extracted");
    fs::create_dir(&extracted).unwrap();
    let (index, tar) = indexed.store(dir.path());
    gnu_extract(&tar, &extracted);
    assert_same(&of_directory(&extracted), &of_directory(&upper));
    if can_mount() {
        let mount = Mount::erofs(&index, &[&tar]);
        assert_same(&of_directory(&mount.path()), &of_directory(&upper));
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    if !is_root() {
        return;
    }
    let tars: Vec<Vec<u8>> = (0..2)
        .map(|_| {
            let dir = scratch();
            make_everything(dir.path());
            for entry in
                ["another", "program", "sparse", "fifo", "null", "disk", "absolute", "long-symlink"]
            {
                set_mtime(&dir.path().join(entry), 5, 5);
            }
            let long = dir.path().join("long-".repeat(50));
            set_mtime(&long.join("long-".repeat(50)), 5, 5);
            set_mtime(&long, 5, 5);
            set_mtime(&dir.path().join(OsStr::from_bytes(b"bin\xff\xfe\ne")), 5, 5);
            set_mtime(dir.path(), 5, 5);
            write_all(dir.path()).0
        })
        .collect();
    assert!(tars[0] == tars[1], "the two tars differ");
}

#[test]
fn an_empty_upper_is_one_entry() {
    let dir = scratch();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let (tar, report) = write_all(dir.path());
    assert_eq!((report.entries, report.skipped_sockets), (1, 0));
    let tree = crate::properties::shown(&index(tar));
    assert_eq!(tree.len(), 1);
    assert_eq!(tree[&b""[..]].mode, 0o700);
}

#[test]
fn overlay_marks_become_layer_marks() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let root = dir.path();
    fs::create_dir(root.join("opaque")).unwrap();
    fs::write(root.join("opaque/f"), b"1").unwrap();
    set_xattr(&root.join("opaque"), "trusted.overlay.opaque", b"y");
    make_node(&root.join("opaque/gone"), FileType::CharacterDevice, 0, 0);
    make_node(&root.join("gone"), FileType::CharacterDevice, 0, 0);
    for (name, value) in [
        ("origin", &b"\0\xfb"[..]),
        ("impure", b"y"),
        ("nlink", b"U+1"),
        ("uuid", b"0123456789abcdef"),
    ] {
        set_xattr(root, &format!("trusted.overlay.{name}"), value);
    }
    set_xattr(&root.join("opaque/f"), "user.overlay.opaque", b"y");
    let indexed = index(write_all(root).0);
    let tree = crate::properties::shown(&indexed);
    assert!(indexed.layer.tree.dropped().is_empty(), "nothing is left for the reader to drop");
    assert_eq!(tree[&b"gone"[..]].kind, Kind::Whiteout);
    assert_eq!(tree[&b"opaque/gone"[..]].kind, Kind::Whiteout);
    assert_eq!(tree[&b"opaque"[..]].xattrs[&b"trusted.overlay.opaque"[..]], b"y");
    assert_eq!(tree[&b"opaque/f"[..]].xattrs[&b"user.overlay.opaque"[..]], b"y");
}

#[test]
fn what_a_layer_cannot_hold_is_refused_by_name() {
    if !is_root() {
        return;
    }
    type Make = fn(&Path);
    for (make, path, problem) in [
        ((|root| fs::write(root.join("d/.wh.x"), b"").unwrap()) as Make, "d/.wh.x", "rename it"),
        (
            |root| fs::create_dir(root.join("d/.wh..wh..opq")).unwrap(),
            "d/.wh..wh..opq",
            "rename it",
        ),
        (
            |root| set_xattr(&root.join("d"), "trusted.overlay.redirect", b"/old"),
            "d",
            "`redirect` (`/old`)",
        ),
        (|root| set_xattr(&root.join("d/f"), "trusted.overlay.metacopy", b""), "d/f", "`metacopy`"),
        (|root| set_xattr(&root.join("d"), "trusted.overlay.opaque", b"x"), "d", "`opaque` (`x`)"),
        (|root| set_xattr(&root.join("d/f"), "trusted.overlay.whiteout", b""), "d/f", "`whiteout`"),
        (|root| set_xattr(root, "trusted.overlay.redirect", b"x"), "/", "`redirect`"),
    ] {
        let dir = scratch();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), b"1").unwrap();
        make(dir.path());
        let error = write(dir.path(), &UpperOptions::default()).unwrap_err();
        assert!(matches!(error, LayerError::UpperEntry { .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("`{path}` ")) && text.contains(problem), "{text}");
    }
}

#[test]
fn sockets_are_skipped_and_counted() {
    let dir = scratch();
    let _one = std::os::unix::net::UnixListener::bind(dir.path().join("s1")).unwrap();
    let _two = std::os::unix::net::UnixListener::bind(dir.path().join("s2")).unwrap();
    fs::write(dir.path().join("f"), b"").unwrap();
    let (tar, report) = write_all(dir.path());
    assert_eq!((report.skipped_sockets, report.entries), (2, 2));
    assert_eq!(crate::properties::shown(&index(tar)).len(), 2);
}

#[test]
fn exclusions_leave_out_whole_paths() {
    let dir = scratch();
    for path in ["etc", "run/kiln", "running"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    for path in ["etc/hosts", "etc/hostname", "run/kiln/x", "running/x"] {
        fs::write(dir.path().join(path), b"").unwrap();
    }
    let exclude = ["/etc/hosts", "run/", "none"].map(PathBuf::from).to_vec();
    let (tar, _) = write(dir.path(), &UpperOptions { exclude, ..UpperOptions::default() }).unwrap();
    let tree = crate::properties::shown(&index(tar));
    let paths: Vec<&str> = tree.keys().map(|path| std::str::from_utf8(path).unwrap()).collect();
    assert_eq!(paths, ["", "etc", "etc/hostname", "running", "running/x"]);
}

#[test]
fn the_apparent_size_is_capped_before_anything_is_written() {
    let dir = scratch();
    fs::write(dir.path().join("a"), b"12345").unwrap();
    fs::File::create(dir.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
    let options = UpperOptions { max_apparent_size: 1 << 20, ..UpperOptions::default() };
    let mut tar = Vec::new();
    let error = write_upper_tar(dir.path(), &mut tar, &options).unwrap_err();
    assert!(
        matches!(error, LayerError::UpperTooLarge { size, .. } if size == (1 << 40) + 5),
        "{error}"
    );
    assert!(tar.is_empty());
}

#[test]
fn what_a_reader_would_refuse_is_not_written() {
    let dir = scratch();
    fs::create_dir_all(dir.path().join("1/2/3/4")).unwrap();
    fs::write(dir.path().join("1/name-of-25-bytes--------"), b"").unwrap();
    set_xattr(&dir.path().join("1/2"), "user.name", &[b'v'; 100]);
    let default = Limits::default;
    for (limits, path, problem) in [
        (Limits { depth: 3, ..default() }, "1/2/3/4", "deeper than 3"),
        (Limits { path_bytes: 26, ..default() }, "1/name-of-25-bytes--------", "longer than 26"),
        (Limits { xattr_bytes: 100, ..default() }, "1/2", "more than 100"),
        (Limits { entries: 3, ..default() }, "1/2/3", "more than 3 entries"),
    ] {
        let options = UpperOptions { limits, ..UpperOptions::default() };
        let text = write(dir.path(), &options).unwrap_err().to_string();
        assert!(text.starts_with(&format!("`{path}` ")) && text.contains(problem), "{text}");
    }
}

/// A writer that does something to the directory once the tar has a few bytes.
struct Meddling<F: FnMut()>(F);

impl<F: FnMut()> Write for Meddling<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (self.0)();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_is_an_error_and_never_a_broken_tar() {
    type Meddle = fn(&Path);
    for meddle in [
        (|file| fs::File::options().write(true).open(file).unwrap().set_len(10).unwrap()) as Meddle,
        |file| fs::File::options().append(true).open(file).unwrap().write_all(b"more").unwrap(),
        |file| {
            fs::rename(file, file.with_extension("old")).unwrap();
            fs::write(file, [1; 3000]).unwrap();
        },
        |file| {
            fs::remove_file(file).unwrap();
            symlink("/etc/passwd", file).unwrap();
        },
        |file| fs::remove_file(file).unwrap(),
    ] {
        let dir = scratch();
        let file = dir.path().join("zz");
        fs::write(&file, [1; 3000]).unwrap();
        let mut meddled = false;
        let out = Meddling(|| {
            if !std::mem::replace(&mut meddled, true) {
                meddle(&file);
            }
        });
        let error = write_upper_tar(dir.path(), out, &UpperOptions::default()).unwrap_err();
        assert!(error.to_string().contains("`zz`"), "{error}");
        assert!(
            matches!(error, LayerError::UpperEntry { .. } | LayerError::ReadUpper { .. }),
            "{error}"
        );
    }
}

#[test]
fn nothing_outside_is_reached() {
    let dir = scratch();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), b"secret").unwrap();
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    symlink(&outside, upper.join("dir")).unwrap();
    symlink("../outside/secret", upper.join("file")).unwrap();
    let (tar, report) = write_all(&upper);
    assert_eq!(report.entries, 3);
    let tree = crate::properties::shown(&index(tar));
    assert!(matches!(tree[&b"dir"[..]].kind, Kind::Symlink(_)));
    assert_eq!(tree[&b"file"[..]].kind, Kind::Symlink(b"../outside/secret".to_vec()));
    let missing = write(&dir.path().join("nowhere"), &UpperOptions::default()).unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");
}

/// What a sandbox saw is what another one sees that starts from its upper's layer.
#[test]
fn a_sandbox_and_its_snapshot_show_the_same() {
    if !can_mount() {
        return;
    }
    let dir = scratch();
    let base = index(
        Archive::new()
            .dir("./")
            .dir("etc/")
            .file("etc/passwd", b"root")
            .file("etc/group", b"root")
            .dir("var/")
            .dir("var/lib/")
            .file("var/lib/state", b"1")
            .dir("old/")
            .file("old/a", b"a")
            .file("old/b", b"b")
            .file("one", b"12")
            .hardlink("two", "one")
            .file("becomes-dir", b"")
            .dir("becomes-file/")
            .file("becomes-file/x", b"")
            .symlink("lib", "var/lib")
            .end(),
    );
    let mount_of = |layer: &Indexed| {
        let (index, tar) = layer.store(dir.path());
        Mount::erofs(&index, &[&tar])
    };
    let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let live = {
        let base_mount = mount_of(&base);
        let overlay = Mount::overlay_on(&[&base_mount], &upper, &work);
        let root = overlay.path();
        fs::write(root.join("etc/passwd"), b"root\nuser").unwrap();
        fs::remove_file(root.join("etc/group")).unwrap();
        fs::set_permissions(root.join("var/lib/state"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_dir_all(root.join("old")).unwrap();
        fs::create_dir(root.join("old")).unwrap();
        fs::write(root.join("old/c"), b"c").unwrap();
        fs::write(root.join("one"), b"changed").unwrap();
        fs::remove_file(root.join("becomes-dir")).unwrap();
        fs::create_dir(root.join("becomes-dir")).unwrap();
        fs::remove_dir_all(root.join("becomes-file")).unwrap();
        fs::write(root.join("becomes-file"), b"f").unwrap();
        fs::write(root.join("lib/through-link"), b"l").unwrap();
        fs::hard_link(root.join("var/lib/state"), root.join("linked")).unwrap();
        make_everything(&root.join("var"));
        rustix::fs::syncfs(fs::File::open(&root).unwrap()).unwrap();
        of_directory(&root)
    };
    let (tar, _) = write_all(&upper);
    let top = index_on(tar, &[&base]);
    let (base_mount, top_mount) = (mount_of(&base), mount_of(&top));
    let again = of_directory(&Mount::overlay(&[&top_mount, &base_mount]).path());
    assert_same(&again, &live);
}
