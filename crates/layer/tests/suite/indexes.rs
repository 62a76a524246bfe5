//! Indexes of single layers: forms, bounds, determinism, damage.

use std::io::Cursor;
use std::path::Path;

use kiln_layer::{DevicePolicy, EntryKind, Index, IndexOptions, LayerError, write_index};
use kiln_types::{DiffId, Digest};
use tar::EntryType;

use crate::archive::{Archive, index, index_with, read};
use crate::debian::{fsck, scratch};
use crate::fixtures::ErofsUtils;
use crate::kernel::{Mount, can_mount};
use crate::properties::shown;
use crate::snapshot::{Kind, assert_same, of_directory};

#[test]
fn later_entries_win() {
    let a = Archive::new;
    for (name, tar, path, expected) in [
        ("file, file", a().file("x", b"1").file("x", b"22"), "x", Kind::File(Digest::of("22"))),
        (
            "dir, file",
            a().dir("x/").file("x/y", b"1").file("x", b"2"),
            "x",
            Kind::File(Digest::of("2")),
        ),
        ("file, dir", a().file("x", b"1").dir("x/"), "x", Kind::Directory),
        ("symlink, dir", a().symlink("x", "y").dir("x/").file("x/z", b""), "x", Kind::Directory),
        (
            "dir, dir keeps content",
            a().dir("x/").file("x/y", b"1").dir("x/"),
            "x/y",
            Kind::File(Digest::of("1")),
        ),
        ("implied, dir", a().file("x/y", b"1").dir("x/"), "x/y", Kind::File(Digest::of("1"))),
        ("file, fifo", a().file("x", b"1").fifo("x"), "x", Kind::Fifo),
        (
            "other spelling",
            a().file("./x", b"1").file("//x", b"22"),
            "x",
            Kind::File(Digest::of("22")),
        ),
    ] {
        let tree = shown(&index(tar.end()));
        assert_eq!(tree[path.as_bytes()].kind, expected, "{name}");
    }
    let gone = shown(&index(a().dir("x/").file("x/y", b"1").file("x", b"2").dir("x/").end()));
    assert!(!gone.contains_key(&b"x/y"[..]), "what a file replaced does not come back");
}

#[test]
fn a_hardlink_keeps_what_its_target_was() {
    let tree = shown(&index(
        Archive::new()
            .file("a", b"old")
            .hardlink("b", "a")
            .hardlink("c", "./b")
            .file("a", b"new")
            .end(),
    ));
    assert_eq!(tree[&b"a"[..]].kind, Kind::File(Digest::of("new")));
    assert_eq!(tree[&b"b"[..]].kind, Kind::File(Digest::of("old")));
    assert_eq!((tree[&b"a"[..]].nlink, tree[&b"b"[..]].nlink), (1, 2));
    assert_eq!(tree[&b"c"[..]].first, b"b");
}

#[test]
fn whiteouts_and_the_same_name_in_one_layer_do_not_depend_on_order() {
    let a = Archive::new;
    for tar in [
        a().dir("d/").file("d/f", b"").file(".wh.d", b"").file("x", b"").file(".wh.x", b""),
        a().file(".wh.d", b"").dir("d/").file("d/f", b"").file(".wh.x", b"").file("x", b""),
    ] {
        let tree = shown(&index(tar.end()));
        assert_eq!(tree[&b"x"[..]].kind, Kind::File(Digest::of("")));
        assert_eq!(tree[&b"d"[..]].xattrs[&b"trusted.overlay.opaque"[..]], b"y");
        assert!(tree.contains_key(&b"d/f"[..]));
    }
}

#[test]
fn aufs_bookkeeping_is_ignored() {
    let tree = shown(&index(
        Archive::new()
            .dir("./")
            .file(".wh..wh.aufs", b"")
            .dir(".wh..wh.plnk/")
            .file(".wh..wh.plnk/123.456", b"data")
            .file(".wh.gone", b"")
            .end(),
    ));
    let paths: Vec<&[u8]> = tree.keys().map(Vec::as_slice).collect();
    assert_eq!(paths, [&b""[..], b"gone"]);
    assert_eq!(tree[&b"gone"[..]].kind, Kind::Whiteout);
    assert_eq!(tree[&b""[..]].xattrs[&b"trusted.overlay.origin"[..]], b"");
}

#[test]
fn dropped_devices_become_whiteouts_and_are_reported() {
    let tar = Archive::new()
        .dir("./")
        .dir("dev/")
        .device(EntryType::Char, "dev/null", 1, 3)
        .device(EntryType::Block, "dev/sda", 8, 0)
        .hardlink("dev/zero", "dev/null")
        .fifo("dev/initctl")
        .end();
    let dropping = index_with(tar.clone(), &[], &IndexOptions::default());
    let tree = shown(&dropping);
    for name in [&b"dev/null"[..], b"dev/sda", b"dev/zero"] {
        assert_eq!(tree[name].kind, Kind::Whiteout);
    }
    assert_eq!(tree[&b"dev/initctl"[..]].kind, Kind::Fifo);
    let dropped: Vec<&str> = dropping.info.dropped.iter().map(|d| d.path.as_str()).collect();
    assert_eq!(dropped, ["/dev/null", "/dev/sda", "/dev/zero"]);
    assert!(dropping.info.dropped[0].reason.contains("1:3"));
    let keeping = index_with(tar, &[], &IndexOptions { devices: DevicePolicy::Keep });
    assert_eq!(shown(&keeping)[&b"dev/sda"[..]].kind, Kind::Block(8, 0));
    assert!(keeping.info.dropped.is_empty());
}

/// Directories of every size around the block boundaries, symlinks of every length, all kinds of xattrs.
#[test]
fn layouts_around_block_boundaries_in_the_kernel() {
    let mut archive = Archive::new().dir("./");
    for count in 0..40 {
        archive = archive.dir(&format!("d{count:02}/"));
        for name in 0..count {
            archive = archive.file(&format!("d{count:02}/n{name:012}"), &[1]);
        }
    }
    for len in (1..600).step_by(7).chain([447, 448, 449, 511, 512, 513, 1023, 1024, 4095]) {
        let target = "t".repeat(len);
        archive = archive.gnu_long(b'K', target.as_bytes()).symlink(&format!("s{len:04}"), "");
    }
    for len in (0..900).step_by(13).chain([65_535]) {
        let value = vec![b'v'; len];
        let records: &[(&[u8], &[u8])] =
            &[(b"SCHILY.xattr.user.a", &value), (b"SCHILY.xattr.security.b", b"x")];
        archive = archive.pax(records).file(&format!("x{len:04}"), b"data");
        archive = archive.pax(records).dir(&format!("y{len:04}/"));
    }
    for len in [1, 511, 512, 513, 4095, 4096, 4097, 100_000] {
        archive = archive.file(&format!("f{len:06}"), &vec![len as u8; len]);
    }
    // Names that sort before `.` and between it and `..`.
    archive = archive.dir("odd/").file("odd/!", b"").file("odd/-", b"").file("odd/...", b"");
    archive = archive.file("odd/.a", b"").file("odd/.-", b"").file("odd/\u{7f}", b"");
    let indexed = index(archive.end());
    let tree = shown(&indexed);
    for path in tree.keys() {
        let path = Path::new(std::str::from_utf8(path).unwrap());
        assert!(indexed.index().lookup(path).unwrap().is_some(), "{}", path.display());
    }
    if !can_mount() {
        return;
    }
    let dir = scratch();
    let (index, tar) = indexed.store(dir.path());
    assert_same(&of_directory(&Mount::erofs(&index, &[&tar]).path()), &tree);
    if let Some(tools) = ErofsUtils::get() {
        fsck(&tools, &index, &[&tar]);
    }
}

#[test]
fn a_directory_of_100_000_entries() {
    const COUNT: u32 = 100_000;
    let archive = (0..COUNT).fold(Archive::new().dir("./").dir("many/"), |archive, number| {
        archive.file(&format!("many/entry-{number:06}"), b"")
    });
    let indexed = index(archive.end());
    let index = indexed.index();
    assert_eq!(index.walk().count(), COUNT as usize + 2);
    for number in [0, 1, 49_999, COUNT - 1] {
        assert!(index.lookup(format!("many/entry-{number:06}")).unwrap().is_some(), "{number}");
    }
    assert!(index.lookup("many/entry-100000").unwrap().is_none());
    if !can_mount() {
        return;
    }
    let dir = scratch();
    let (index, tar) = indexed.store(dir.path());
    let mount = Mount::erofs(&index, &[&tar]);
    assert_eq!(std::fs::read_dir(mount.path().join("many")).unwrap().count(), COUNT as usize);
    let last = mount.path().join(format!("many/entry-{:06}", COUNT - 1));
    assert!(std::fs::metadata(last).unwrap().is_file());
}

#[test]
fn the_index_names_its_tar_and_depends_on_it() {
    let tar = Archive::new().dir("./").file("f", b"1").end();
    let layer = read(&tar);
    let write = |diff_id, size| {
        let mut out = Cursor::new(b"old content that is longer than nothing".to_vec());
        let info = write_index(&layer.tree, diff_id, size, &[], &mut out).unwrap();
        (out.into_inner(), info)
    };
    let (bytes, info) = write(layer.diff_id, layer.tar_size);
    assert_eq!(info.devices, [layer.diff_id]);
    assert_eq!(Index::from_bytes(bytes.clone(), "x").unwrap().devices(), [layer.diff_id]);
    assert_eq!(write(layer.diff_id, layer.tar_size).0, bytes);
    let (other, _) = write(DiffId(Digest::of("other")), layer.tar_size);
    assert_ne!(other, bytes);
    // The UUID follows the content: no two indexes share one.
    let uuid = 1024 + 48..1024 + 64;
    assert_ne!(other[uuid.clone()], bytes[uuid]);
}

#[test]
fn what_the_format_cannot_say_is_refused() {
    let tar = Archive::new().dir("./").file("f", b"1").end();
    let layer = read(&tar);
    for (size, problem) in [(1 << 41, "2 TiB"), (512, "blocks of 512 bytes")] {
        let mut out = Cursor::new(Vec::new());
        let error = write_index(&layer.tree, layer.diff_id, size, &[], &mut out).unwrap_err();
        assert!(matches!(error, LayerError::Unrepresentable { .. }), "{error}");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn damaged_indexes_are_said_to_be() {
    let bytes = index(Archive::new().dir("./").file("f", b"1").end()).bytes;
    let flip = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (name, damaged) in [
        ("empty", Vec::new()),
        ("cut", bytes[..bytes.len() - 512].to_vec()),
        ("longer", [&bytes[..], &[0; 512]].concat()),
        ("magic", flip(1024)),
        ("tag", flip(1152)),
        ("root", flip(1038)),
    ] {
        let error = Index::from_bytes(damaged, "some/index").unwrap_err();
        assert!(matches!(error, LayerError::DamagedIndex { .. }), "{name}: {error}");
        assert!(error.to_string().contains("some/index"), "{name}: {error}");
    }
    let missing = Index::open("/nowhere/index").unwrap_err();
    assert!(matches!(missing, LayerError::ReadIndex { .. }), "{missing}");
    for byte in 1536..bytes.len() {
        let index = Index::from_bytes(flip(byte), "x").unwrap();
        let _: Vec<_> = index.walk().collect();
        let _ = index.lookup("f");
    }
}

#[test]
fn look_up_follows_nothing() {
    let index =
        index(Archive::new().dir("./").dir("d/").file("d/f", b"12").symlink("s", "d").end())
            .index();
    let kind = |path: &str| index.lookup(path).unwrap().map(|entry| entry.kind);
    assert_eq!(kind("/"), Some(EntryKind::Directory));
    assert_eq!(kind(""), Some(EntryKind::Directory));
    assert_eq!(kind("/d/./"), Some(EntryKind::Directory));
    assert_eq!(kind("s"), Some(EntryKind::Symlink(b"d".to_vec())));
    for absent in ["s/f", "d/f/x", "d/g", "x", "d/..", ".."] {
        assert_eq!(kind(absent), None, "{absent}");
    }
}
