//! What a layer may not be; each refusal names the entry.

use kiln_layer::{LayerError, Limits, read_layer};
use tar::EntryType;

use crate::archive::{Archive, header, refuse};

#[test]
fn refused_entries_are_named() {
    let number = |field: fn(&mut tar::OldHeader)| {
        let mut header = header(EntryType::Regular, b"bad/number");
        field(header.as_old_mut());
        Archive::new().entry(header, b"")
    };
    let raw_size = |size: [u8; 12]| {
        let mut header = header(EntryType::Regular, b"bad/size");
        header.as_old_mut().size = size;
        header.set_cksum();
        Archive::new().raw(header.as_bytes())
    };
    let mut broken = header(EntryType::Regular, b"bad/sum");
    broken.set_cksum();
    broken.as_old_mut().mode[0] ^= 1;
    let mut old_device = tar::Header::new_old();
    old_device.as_old_mut().name[..3].copy_from_slice(b"dev");
    old_device.as_old_mut().linkflag = *b"3";
    let mut extended = header(EntryType::XHeader, b"PaxHeaders");
    extended.as_old_mut().mode = *b"0000899\0";
    let mut short_long_name = header(EntryType::GNULongName, b"././@LongLink");
    short_long_name.set_size(3);
    short_long_name.set_cksum();
    let short_long_name = *short_long_name.as_bytes();
    let long = |len| "x".repeat(len);
    let a = Archive::new;
    let typed = |flag: u8| a().entry(header(EntryType::new(flag), b"odd"), b"");
    for (name, tar, entry, problem) in [
        ("GNU sparse", typed(b'S'), "odd", "sparse"),
        ("PAX sparse 1.0", a().pax(&[(b"GNU.sparse.major", b"1")]).file("sp", b""), "sp", "sparse"),
        ("PAX sparse 0.0", a().pax(&[(b"GNU.sparse.size", b"1")]).file("sp", b""), "sp", "sparse"),
        ("star sparse", a().pax(&[(b"SCHILY.realsize", b"1")]).file("sp", b""), "sp", "sparse"),
        ("dot-dot", a().file("a/../b", b""), "a/../b", "`..`"),
        ("dot-dot in front", a().file("../b", b""), "../b", "`..`"),
        ("dot-dot whiteout", a().file("a/../.wh.b", b""), "a/../.wh.b", "`..`"),
        ("dot-dot target", a().file("t", b"").hardlink("l", "../t"), "l", "`..`"),
        ("volume label", typed(b'V'), "odd", "type `V`"),
        ("dump directory", typed(b'D'), "odd", "type `D`"),
        ("continuation", typed(b'M'), "odd", "type `M`"),
        ("Solaris header", typed(b'X'), "odd", "type `X`"),
        ("unknown type", typed(0xff), "odd", "type `\\u{ff}`"),
        ("device in a V7 header", a().entry(old_device, b""), "dev", "type `3`"),
        ("checksum", a().raw(broken.as_bytes()), "bad/sum", "checksum"),
        ("octal digits", number(|h| h.uid = *b"0000009\0"), "bad/number", "`uid`"),
        ("negative gid", number(|h| h.gid = [0xff; 8]), "bad/number", "`gid`"),
        ("uid -1", number(|h| h.uid = *b"\x80\0\0\0\xff\xff\xff\xff"), "bad/number", "`uid`"),
        ("uid of 33 bits", number(|h| h.uid = *b"\x80\0\0\x01\0\0\0\0"), "bad/number", "`uid`"),
        ("negative mode", number(|h| h.mode = [0xff; 8]), "bad/number", "`mode`"),
        ("mtime", number(|h| h.mtime = *b"12x456789012"), "bad/number", "`mtime`"),
        ("negative size", raw_size([0xff; 12]), "bad/size", "`size`"),
        ("size of 2^63", raw_size(*b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), "bad/size", "`size`"),
        (
            "size of 2^95",
            raw_size(*b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            "bad/size",
            "`size`",
        ),
        ("device number", a().device(EntryType::Char, "dev", 4096, 1), "dev", "device number"),
        ("PAX uid", a().pax(&[(b"uid", b"-1")]).file("p", b""), "p", "`uid`"),
        ("PAX uid of all ones", a().pax(&[(b"uid", b"4294967295")]).file("p", b""), "p", "`uid`"),
        ("PAX size", a().pax(&[(b"size", b"1e3"), (b"path", b"q")]).file("p", b""), "q", "`size`"),
        ("PAX mtime", a().pax(&[(b"mtime", b"now")]).file("p", b""), "p", "`mtime`"),
        (
            "PAX record",
            a().entry(header(EntryType::XHeader, b"P"), b"7 a=b\n").file("p", b""),
            "p",
            "record",
        ),
        ("empty PAX path", a().pax(&[(b"path", b"")]).file("p", b""), "p", "`path` is empty"),
        ("empty PAX size", a().pax(&[(b"size", b"")]).file("p", b""), "p", "`size` is empty"),
        (
            "mode of a PAX header",
            a().entry(extended.clone(), b"").file("p", b""),
            "PaxHeaders",
            "`mode`",
        ),
        ("two PAX headers", a().pax(&[(b"path", b"q")]).pax(&[]).file("p", b""), "q", "two PAX"),
        (
            "long name beyond its size",
            a().raw(&short_long_name).data(b"named").file("p", b""),
            "nam",
            "behind its size",
        ),
        (
            "two long names",
            a().gnu_long(b'L', b"q").gnu_long(b'L', b"r").file("p", b""),
            "q",
            "two GNU",
        ),
        (
            "names that differ",
            a().gnu_long(b'L', b"q").pax(&[(b"path", b"r")]).file("p", b""),
            "r",
            "differ",
        ),
        ("dangling PAX header", a().pax(&[(b"path", b"q")]), "q", "not followed"),
        (
            "global path",
            a().pax_type(b'g', &[(b"path", b"q")]).file("p", b""),
            "p",
            "global PAX header sets `path`",
        ),
        (
            "global xattr",
            a().pax_type(b'g', &[(b"SCHILY.xattr.user.a", b"q")]).file("p", b""),
            "p",
            "SCHILY.xattr.user.a",
        ),
        (
            "directory with data",
            a().entry(header(EntryType::Directory, b"d/"), b"x"),
            "d/",
            "size is 1",
        ),
        ("hardlink with data", a().file("t", b"").entry(link("h", "t"), b"xyz"), "h", "size is 3"),
        ("file with a slash", a().file("f/", b"x"), "f/", "slash"),
        ("empty path", a().file("", b""), "", "empty"),
        ("root as a file", a().file("./", b"").file(".", b""), ".", "root"),
        ("NUL in a path", a().pax(&[(b"path", b"a\0b")]).file("p", b""), "a\\0b", "NUL"),
        (
            "component of 256 bytes",
            a().pax(&[(b"path", long(256).as_bytes())]).file("p", b""),
            &long(256),
            "255",
        ),
        ("below a file", a().file("f", b"").file("f/x", b""), "f/x", "`f` is not a directory"),
        ("whiteout below a file", a().file("f", b"").file("f/.wh.x", b""), "f/.wh.x", "`f`"),
        ("below a whiteout", a().file(".wh.d/x", b""), ".wh.d/x", "not a directory"),
        ("whiteout of nothing", a().file("d/.wh.", b""), "d/.wh.", "nothing that a layer can hide"),
        ("whiteout of dot", a().file(".wh..", b""), ".wh..", "nothing that a layer can hide"),
        ("whiteout of dot-dot", a().file(".wh...", b""), ".wh...", "nothing that a layer can hide"),
        ("link to itself", a().file("f", b"").hardlink("f", "./f"), "f", "the entry itself"),
        ("link into itself", a().file("d/f", b"").hardlink("d", "d/f"), "d", "lies below it"),
        ("link to a directory", a().dir("d/").hardlink("l", "d"), "l", "`d` is a directory"),
        (
            "link to an implied directory",
            a().file("d/f", b"").hardlink("l", "d"),
            "l",
            "`d` is a directory",
        ),
        ("link to the root", a().hardlink("l", "/"), "l", "`/` is the root"),
        ("link to a whiteout", a().hardlink("l", ".wh.x"), "l", "is a whiteout"),
        ("link below a file", a().file("f", b"").hardlink("l", "f/x"), "l", "not a directory"),
        ("empty symlink", a().symlink("s", ""), "s", "is empty"),
        ("control characters", a().file("a\x1b[2J/../b", b""), "a\\u{1b}[2J/../b", "`..`"),
    ] {
        let error = refuse(&tar.end());
        let text = error.to_string();
        assert!(matches!(error, LayerError::Entry { .. }), "{name}: {text}");
        assert!(error.is_bad_layer(), "{name}");
        assert!(text.starts_with(&format!("layer entry `{entry}` (")), "{name}: {text}");
        assert!(text.contains(problem), "{name}: {text}");
    }
}

fn link(path: &str, target: &str) -> tar::Header {
    let mut header = header(EntryType::Link, path.as_bytes());
    header.set_link_name_literal(target).unwrap();
    header
}

#[test]
fn truncation_is_noticed_wherever_it_happens() {
    let whole = Archive::new()
        .pax(&[(b"path", b"named-by-pax")])
        .file("f", &[1; 700])
        .file("last", &[2; 600])
        .unfinished();
    // Ends between members are the end of an archive without a marker; the PAX header is not one.
    let ends = [3 * 512 + 1024, whole.len()];
    for len in 1..whole.len() {
        if ends.contains(&len) {
            continue;
        }
        let error = refuse(&whole[..len]);
        let LayerError::Entry { entry, .. } = &error else { panic!("{len}: {error}") };
        let expected = match len {
            // Before the extended header is complete, nothing is known about the entry.
            ..1024 => "(not named yet)",
            1024..=2560 => "named-by-pax",
            2561..3072 => "(not named yet)",
            _ => "last",
        };
        assert_eq!(entry, expected, "{len}");
    }
}

#[test]
fn what_is_not_a_tar_is_said_so() {
    let mut damaged_zstd = zstd::encode_all(&Archive::new().file("f", b"1").end()[..], 1).unwrap();
    damaged_zstd[9..].fill(0xff);
    for (input, problem) in [
        (&b""[..], "empty"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"hello, this is a text", "ends inside"),
        (&[b'x'; 2000], "checksum"),
        (b"\x1f\x8b\x08", "byte 0"),
        (b"\x28\xb5\x2f\xfd", "byte 0"),
        (&damaged_zstd[..], "byte 0"),
        (&zstd::encode_all(&b""[..], 1).unwrap(), "empty"),
    ] {
        let error = refuse(input);
        assert!(error.to_string().contains(problem), "{error}");
        assert!(error.is_bad_layer(), "{error:?}");
    }
}

#[test]
fn data_after_one_zero_block_are_refused() {
    let tar = Archive::new().file("a", b"").raw(&[0; 512]).file("hidden", b"").end();
    let text = refuse(&tar).to_string();
    assert!(text.contains("`hidden`") && text.contains("single zero block"), "{text}");
}

#[test]
fn limits() {
    let low = Limits {
        entries: 3,
        metadata_bytes: 37,
        path_bytes: 20,
        depth: 4,
        symlink_bytes: 10,
        xattr_bytes: 30,
        pax_bytes: 100,
        tar_bytes: 10_000,
        ..Limits::default()
    };
    let a = Archive::new;
    for (tar, name) in [
        (a().file("1", b"").file("2", b"").file("3", b"").file("4", b""), "entries"),
        (a().file(&"x".repeat(20), b""), "path_bytes"),
        (a().file("1/2/3/4/5", b""), "depth"),
        (a().symlink("s", "12345678901"), "symlink_bytes"),
        (a().pax(&[(b"SCHILY.xattr.user.name", &[b'v'; 25])]).file("x", b""), "xattr_bytes"),
        (a().pax(&[(b"comment", &[b'v'; 100])]).file("x", b""), "pax_bytes"),
        (a().file("big", &[0; 10_000]), "tar_bytes"),
        (a().file("1/2/3/4", b""), "entries"),
        (a().file(&"x".repeat(19), b"").file(&"y".repeat(19), b""), "metadata_bytes"),
    ] {
        let tar = tar.end();
        let error = read_layer(&tar[..], std::io::sink(), &low).unwrap_err();
        assert!(error.to_string().contains(&format!("`{name}`")), "{name}: {error}");
        assert!(error.is_bad_layer());
    }
    let fits = a().file(&"x".repeat(19), b"").symlink("s", "1234567890").end();
    read_layer(&fits[..], std::io::sink(), &low).unwrap();
    let tar = a().file("first", b"").file("second", &[0; 10_000]).end();
    let error = read_layer(&tar[..], std::io::sink(), &low).unwrap_err();
    assert!(error.to_string().contains("reached at entry `second`"), "{error}");
}

#[test]
fn bombs_are_cut_short() {
    let mut big = header(EntryType::Regular, b"zeros");
    let size = 8 << 20;
    big.set_size(size);
    big.set_cksum();
    let tar = [big.as_bytes().to_vec(), vec![0; size as usize + 1024]].concat();
    let limits = Limits { inflate_ratio: 20, inflate_free_bytes: 1 << 20, ..Limits::default() };
    for compressed in [zstd::encode_all(&tar[..], 1).unwrap(), {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &tar).unwrap();
        encoder.finish().unwrap()
    }] {
        let mut written = 0;
        let error = read_layer(&compressed[..], Count(&mut written), &limits).unwrap_err();
        assert!(error.to_string().contains("`inflate_ratio`"), "{error}");
        assert!(written < 6 << 20, "{written} bytes were written first");
        read_layer(&compressed[..], std::io::sink(), &Limits::default()).unwrap();
    }
}

struct Count<'c>(&'c mut u64);

impl std::io::Write for Count<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        *self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
