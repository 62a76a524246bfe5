//! What `read_layer` accepts: compressions, header dialects, odd but valid archives.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};

use flate2::write::GzEncoder;
use kiln_layer::{EntryKind, Index, LayerError, Limits, Mtime, read_layer, read_layer_hashed};
use kiln_types::{DiffId, Digest};
use tar::{EntryType, Header};

use crate::archive::{Archive, header, index, read};

fn sample() -> Vec<u8> {
    Archive::new().dir("./").dir("d/").file("d/f", &[7; 1000]).symlink("l", "d/f").end()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}

#[test]
fn compressions_give_the_same_layer() {
    let tar = sample();
    let (a, b) = tar.split_at(700);
    let skippable = [&b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..], &zstd(&tar)].concat();
    for (name, input) in [
        ("plain", tar.clone()),
        ("gzip", gzip(&tar)),
        ("gzip of two members", [gzip(a), gzip(b)].concat()),
        ("gzip with an empty member", [gzip(&tar), gzip(b"")].concat()),
        ("zstd", zstd(&tar)),
        ("zstd of two frames", [zstd(a), zstd(b)].concat()),
        ("zstd with a skippable frame", skippable),
    ] {
        let mut copy = Vec::new();
        let layer = read_layer(&input[..], &mut copy, &Limits::default()).unwrap();
        assert_eq!(copy, tar, "{name}");
        assert_eq!(layer.diff_id, DiffId(Digest::of(&tar)), "{name}");
        assert_eq!(layer.tar_size, tar.len() as u64, "{name}");
        assert_eq!(layer.tree.entries(), 4, "{name}");
        let of = |copy: &Vec<u8>| DiffId(Digest::of(copy));
        let hashed = read_layer_hashed(&input[..], Vec::new(), of, &Limits::default()).unwrap();
        assert_eq!((hashed.diff_id, hashed.tar_size), (layer.diff_id, layer.tar_size), "{name}");
    }
}

/// A reader that hands out one byte at a time.
struct Drip<'d>(&'d [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

#[test]
fn small_reads_change_nothing() {
    let tar = sample();
    for input in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let layer = read_layer(Drip(&input), std::io::sink(), &Limits::default()).unwrap();
        assert_eq!(layer.diff_id, DiffId(Digest::of(&tar)));
    }
}

#[test]
fn the_diff_id_covers_bytes_after_the_end() {
    let tar = [sample(), vec![0; 9216], b"and some rubbish".to_vec()].concat();
    let layer = read(&tar);
    assert_eq!(layer.diff_id, DiffId(Digest::of(&tar)));
    assert_eq!(layer.tar_size, tar.len() as u64);
    assert_eq!(layer.tree.entries(), 4);
}

#[test]
fn an_archive_may_lack_its_end_marker() {
    let without = Archive::new().file("f", b"x").unfinished();
    assert_eq!(read(&without).tree.entries(), 1);
    let one_block = Archive::new().file("f", b"x").raw(&[0; 512]).unfinished();
    assert_eq!(read(&one_block).tree.entries(), 1);
    assert_eq!(read(&[0; 1024]).tree.entries(), 0);
}

#[test]
fn a_tar_on_disk_gives_the_same_layer() {
    let tar = [sample(), vec![0; 20_000]].concat();
    let expected = index(tar.clone());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&tar).unwrap();
    let hashed = kiln_layer::read_tar_file(&file, &Limits::default()).unwrap();
    let (tree, size) = kiln_layer::read_tar_tree(&file, &Limits::default()).unwrap();
    assert_eq!((hashed.diff_id, hashed.tar_size), (expected.layer.diff_id, size));
    for tree in [&hashed.tree, &tree] {
        let mut out = std::io::Cursor::new(Vec::new());
        kiln_layer::write_index(tree, hashed.diff_id, size, &[], &mut out).unwrap();
        assert_eq!(out.into_inner(), expected.bytes);
    }
}

#[test]
fn every_dialect_of_long_names() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(150));
    let mut split = Header::new_ustar();
    split.set_path(format!("{}/{}", "p".repeat(120), "n".repeat(90))).unwrap();
    let binary = [b"bin-\xff\xfe".as_slice(), &[b'x'; 120]].concat();
    for (tar, path) in [
        (
            Archive::new().gnu_long(b'L', long.as_bytes()).file("short", b"1"),
            long.clone().into_bytes(),
        ),
        (
            Archive::new().pax(&[(b"path", long.as_bytes())]).file("short", b"1"),
            long.clone().into(),
        ),
        (
            Archive::new()
                .pax(&[(b"path", long.as_bytes())])
                .gnu_long(b'L', long.as_bytes())
                .file("short", b"1"),
            long.clone().into(),
        ),
        (
            Archive::new().entry(split.clone(), b"1"),
            format!("{}/{}", "p".repeat(120), "n".repeat(90)).into(),
        ),
        (Archive::new().pax(&[(b"path", &binary)]).file("short", b"1"), binary.clone()),
        (Archive::new().gnu_long(b'L', &binary).file("short", b"1"), binary.clone()),
        (Archive::new().entry(header(EntryType::Regular, b"v\xe4"), b"1"), b"v\xe4".to_vec()),
        (Archive::new().file("/absolute//./path", b"1"), b"absolute/path".to_vec()),
        (Archive::new().file("././x", b"1"), b"x".to_vec()),
        (Archive::new().pax(&[(b"path", b"a"), (b"path", b"b")]).file("c", b"1"), b"b".to_vec()),
    ] {
        let index = index(tar.end()).index();
        let path = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path);
        let entry = index.lookup(path).unwrap().unwrap_or_else(|| panic!("no {}", path.display()));
        assert_eq!(entry.size, 1);
    }
}

#[test]
fn a_star_header_keeps_its_times_out_of_the_path() {
    let mut star = Header::new_ustar();
    star.as_ustar_mut().unwrap().name[..1].copy_from_slice(b"f");
    let bytes = star.as_mut_bytes();
    bytes[345..346].copy_from_slice(b"d");
    bytes[476..487].copy_from_slice(b"14000000000");
    bytes[508..512].copy_from_slice(b"tar\0");
    let index = index(Archive::new().entry(star, b"1").end()).index();
    assert!(index.lookup("d/f").unwrap().is_some());
}

#[test]
fn slashes_and_old_types_mean_what_tools_agree_on() {
    let mut old_file = Header::new_old();
    old_file.as_old_mut().name[..1].copy_from_slice(b"f");
    old_file.as_old_mut().linkflag = [0];
    let mut old_dir = Header::new_old();
    old_dir.as_old_mut().name[..2].copy_from_slice(b"d/");
    old_dir.as_old_mut().linkflag = [0];
    let contiguous = header(EntryType::Continuous, b"c");
    let tar = Archive::new().entry(old_file, b"1").entry(old_dir, b"").entry(contiguous, b"22");
    let index = index(tar.end()).index();
    let kind = |path| index.lookup(path).unwrap().unwrap();
    assert!(matches!(kind("f").kind, EntryKind::File(_)));
    assert_eq!(kind("d").kind, EntryKind::Directory);
    assert_eq!(kind("c").size, 2);
}

#[test]
fn numbers_in_all_their_forms() {
    let mut big = header(EntryType::Regular, b"big-ids");
    big.set_uid(3_000_000_000);
    big.set_gid(2_097_152);
    big.set_mtime(1 << 34);
    let mut old = header(EntryType::Regular, b"before-1970");
    old.as_old_mut().mtime = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe";
    let mut typed = header(EntryType::Regular, b"mode-with-type");
    typed.set_mode(0o104_755);
    let tar = Archive::new()
        .entry(big, b"")
        .entry(old, b"")
        .entry(typed, b"")
        .pax(&[(b"mtime", b"1700000000.123456789"), (b"uid", b"70000"), (b"gid", b"4294967294")])
        .file("pax", b"")
        .end();
    let index = index(tar).index();
    let entry = |path| index.lookup(path).unwrap().unwrap();
    assert_eq!((entry("big-ids").uid, entry("big-ids").gid), (3_000_000_000, 2_097_152));
    assert_eq!(entry("big-ids").mtime, Mtime { secs: 1 << 34, nanos: 0 });
    assert_eq!(entry("before-1970").mtime, Mtime { secs: -2, nanos: 0 });
    assert_eq!(entry("mode-with-type").mode, 0o4755);
    assert_eq!(entry("pax").mtime, Mtime { secs: 1_700_000_000, nanos: 123_456_789 });
    assert_eq!((entry("pax").uid, entry("pax").gid), (70_000, 4_294_967_294));
}

/// A tar that is made while it is read: a header, zeros, an end.
struct Generated {
    head: Vec<u8>,
    zeros: u64,
    tail: Vec<u8>,
}

impl Read for Generated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.head.is_empty() {
            let count = (&self.head[..]).read(buffer)?;
            self.head.drain(..count);
            return Ok(count);
        }
        if self.zeros > 0 {
            let count = self.zeros.min(buffer.len() as u64) as usize;
            buffer[..count].fill(0);
            self.zeros -= count as u64;
            return Ok(count);
        }
        let count = (&self.tail[..]).read(buffer)?;
        self.tail.drain(..count);
        Ok(count)
    }
}

#[test]
fn a_file_of_more_than_4_gib_as_a_stream() {
    const SIZE: u64 = (4 << 30) + 512;
    let mut big = header(EntryType::Regular, b"big");
    big.set_size(SIZE);
    big.set_cksum();
    let head = Archive::new().raw(big.as_bytes()).unfinished();
    let tail = Archive::new().file("after", b"1").end();
    let total = head.len() as u64 + SIZE + tail.len() as u64;
    let input = Generated { head, zeros: SIZE, tail };
    let layer = read_layer(input, std::io::sink(), &Limits::default()).unwrap();
    assert_eq!(layer.tar_size, total);
    let mut out = std::io::Cursor::new(Vec::new());
    kiln_layer::write_index(&layer.tree, layer.diff_id, total, &[], &mut out).unwrap();
    let index = Index::from_bytes(out.into_inner(), "test").unwrap();
    assert_eq!(index.lookup("big").unwrap().unwrap().size, SIZE);
    let EntryKind::File(extents) = index.lookup("after").unwrap().unwrap().kind else { panic!() };
    assert_eq!(extents[0].offset, 512 + SIZE + 512);
}

#[test]
fn files_of_gigabytes_and_terabytes_in_a_sparse_tar() {
    const SIZES: [u64; 3] = [5 << 30, (1 << 40) + 512, 1];
    let file = tempfile::tempfile().unwrap();
    let mut position = 0;
    for (number, size) in SIZES.iter().enumerate() {
        let mut header = header(EntryType::Regular, format!("f{number}").as_bytes());
        // The last one says its size in a PAX record; the header's own field is then of no account.
        header.set_size(*size);
        header.set_cksum();
        std::os::unix::fs::FileExt::write_all_at(&file, header.as_bytes(), position).unwrap();
        position += 512 + size.next_multiple_of(512);
    }
    file.set_len(position + 1024).unwrap();
    let limits = Limits { tar_bytes: 1 << 41, ..Limits::default() };
    let (tree, size) = kiln_layer::read_tar_tree(&file, &limits).unwrap();
    let tar = DiffId(Digest::of("sparse"));
    let mut out = std::io::Cursor::new(Vec::new());
    kiln_layer::write_index(&tree, tar, size, &[], &mut out).unwrap();
    let index = Index::from_bytes(out.into_inner(), "test").unwrap();
    let mut offset = 512;
    for (number, size) in SIZES.iter().enumerate() {
        let entry = index.lookup(format!("f{number}")).unwrap().unwrap();
        let EntryKind::File(extents) = entry.kind else { panic!() };
        assert_eq!(extents, [kiln_layer::Extent { tar, offset, len: *size }]);
        offset += size.next_multiple_of(512) + 512;
    }
}

#[test]
fn a_pax_size_overrides_the_header() {
    let mut lying = header(EntryType::Regular, b"f");
    lying.set_size(0);
    lying.set_cksum();
    let tar = Archive::new()
        .pax(&[(b"size", b"600")])
        .raw(lying.as_bytes())
        .data(&[5; 600])
        .file("next", b"1")
        .end();
    let layer = index(tar);
    assert_eq!(layer.index().lookup("f").unwrap().unwrap().size, 600);
    assert!(layer.index().lookup("next").unwrap().is_some());
}

#[test]
fn xattrs_that_a_layer_must_not_set_are_dropped_by_name() {
    let tar = Archive::new()
        .pax(&[
            (b"SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            (b"SCHILY.xattr.user.kept", b"1\n2"),
            (b"SCHILY.xattr.user.kept", b"later\n"),
            (b"SCHILY.xattr.user.empty", b""),
            (b"SCHILY.xattr.system.nfs4_acl", b"x"),
            (b"SCHILY.acl.access", b"user::rwx"),
        ])
        .file("dir/f", b"")
        .device(EntryType::Char, "fake-whiteout", 0, 0)
        .end();
    let layer = index(tar);
    let entry = layer.index().lookup("dir/f").unwrap().unwrap();
    let kept: HashMap<Vec<u8>, Vec<u8>> =
        entry.xattrs.into_iter().map(|x| (x.name, x.value)).collect();
    let expected = [(b"user.kept".to_vec(), b"later\n".to_vec()), (b"user.empty".to_vec(), vec![])];
    assert_eq!(kept, HashMap::from(expected));
    assert!(layer.index().lookup("fake-whiteout").unwrap().is_none());
    let dropped: Vec<String> =
        layer.layer.tree.dropped().iter().map(|d| format!("{}: {}", d.path, d.reason)).collect();
    for (path, what) in [
        ("/dir/f", "trusted.overlay.redirect"),
        ("/dir/f", "system.nfs4_acl"),
        ("/dir/f", "SCHILY.acl.access"),
        ("/fake-whiteout", "0:0"),
    ] {
        let found = dropped.iter().any(|line| line.starts_with(path) && line.contains(what));
        assert!(found, "{path}: {what} not in {dropped:?}");
    }
    assert_eq!(dropped.len(), 4);
}

#[test]
fn the_cause_of_a_failed_read_or_write_is_kept() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the line is dead"))
        }
    }
    let input = sample().chain_broken();
    let error = read_layer(input, std::io::sink(), &Limits::default()).unwrap_err();
    assert!(matches!(error, LayerError::ReadInput { .. }) && !error.is_bad_layer(), "{error}");

    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = read_layer(&sample()[..], full, &Limits::default()).unwrap_err();
    assert!(matches!(error, LayerError::WriteTar(_)), "{error}");

    trait ChainBroken {
        fn chain_broken(self) -> impl Read;
    }
    impl ChainBroken for Vec<u8> {
        fn chain_broken(self) -> impl Read {
            std::io::Cursor::new(self).chain(Broken)
        }
    }
}
