//! Archives and indexes.

use std::io::{Cursor, Write as _};

use kiln_layer::{DevicePolicy, IndexOptions, Limits, read_layer, write_index_with};

use crate::archive::{Archive, Header, Magic};

type Seeds = Vec<(&'static str, Vec<u8>)>;

/// Archives that are read, and some that are refused.
pub(super) fn tars() -> Seeds {
    let a = Archive::new;
    let long = "n".repeat(120);
    let everything = a()
        .dir("./")
        .dir("d/")
        .file("d/f", [b'f'; 600])
        .symlink("d/s", "../d/f")
        .hardlink("d/h", "d/f")
        .fifo("p")
        .device(b'3', "c", 1, 3)
        .device(b'4', "b", 8, 0)
        .file("d/.wh.gone", "")
        .file("o/.wh..wh..opq", "")
        .end();
    let pax = a()
        .pax(&[
            (&b"path"[..], long.as_bytes()),
            (b"mtime", b"-1.5"),
            (b"uid", b"3000000"),
            (b"gid", b"65534"),
            (b"SCHILY.xattr.user.k", b"v\n\0v"),
            (b"SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0"),
            (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
            (b"comment", b""),
        ])
        .file("short", "data")
        .global(&[("comment", "global")])
        .pax(&[("size", "3"), ("linkpath", "x")])
        .raw(&Header::new(b'0', "sized").sealed())
        .data(b"abc")
        .end();
    let gnu = a()
        .gnu_long(b'L', &long)
        .entry(Header::new(b'0', "x").magic(Magic::Gnu), b"1")
        .gnu_long(b'K', &long)
        .entry(Header::new(b'2', "l").magic(Magic::Gnu).link("x"), b"")
        .entry(
            Header::new(b'0', "big").magic(Magic::Gnu).bytes(108, b"\x80\0\0\0\0\x2d\xc6\xc0"),
            b"",
        )
        .end();
    let old = a()
        .entry(Header::new(0, "d/").magic(Magic::V7), b"")
        .entry(Header::new(0, "d/f").magic(Magic::V7), b"x")
        .entry(Header::new(b'7', "contiguous"), b"x")
        .entry(Header::new(b'0', "name").bytes(345, b"prefix"), b"x")
        .unfinished();
    let changes = a()
        .file("t", "1")
        .dir("t/")
        .file("t/x", "2")
        .file("t", "3")
        .symlink("t", "u")
        .hardlink("v", "t")
        .file("v", "4")
        .file("a/f/../x", "")
        .end();
    let below = a()
        .file("s/through/.wh.x", "")
        .file("up/new", "1")
        .file("abs/new", "2")
        .file("loop/x", "3")
        .hardlink("l", "a/f")
        .hardlink("m", "s/f")
        .file("a/.wh..wh..opq", "")
        .file("a/.wh.f", "")
        .end();
    let through = a()
        .symlink("s", "d/e")
        .file("s/f", "1")
        .symlink("s/up", "../../../x")
        .file("d/e/up/g", "2")
        .symlink("t", "/s/up/..")
        .hardlink("t/h", "s/f")
        .file("s/.wh.gone", "")
        .file("t/.wh..wh..opq", "")
        .symlink("out", "a/../abs/../d")
        .file("out/i", "3")
        .symlink("s", "x")
        .file("s/j", "4")
        .dir("s/")
        .file("s/k", "5")
        .symlink("r", "r2")
        .symlink("r2", "r")
        .end();
    let sparse = a()
        .pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")])
        .file("s", "")
        .entry(Header::new(b'S', "old").magic(Magic::Gnu), b"")
        .end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&everything).expect("a Vec takes all bytes");
    let gzip = gzip.finish().expect("a Vec takes all bytes");
    let zstd = zstd::encode_all(&everything[..], 1).expect("a Vec takes all bytes");
    vec![
        ("everything", everything),
        ("pax", pax),
        ("gnu", gnu),
        ("old", old),
        ("changes", changes),
        ("below", below),
        ("through", through),
        ("sparse", sparse),
        ("gzip", gzip),
        ("zstd", zstd),
        ("end", a().end()),
    ]
}

/// The indexes of the archives that are read.
pub(super) fn indexes() -> Seeds {
    let mut indexes = Vec::new();
    let mut seeds = tars();
    seeds.push(("base", crate::properties::base_tar()));
    for (name, tar) in seeds {
        let Ok(layer) = read_layer(&tar[..], std::io::sink(), &Limits::default()) else { continue };
        let mut out = Cursor::new(Vec::new());
        let options = IndexOptions { devices: DevicePolicy::Keep };
        let (tree, id, size) = (&layer.tree, layer.diff_id, layer.tar_size);
        if write_index_with(tree, id, size, &[], &options, &mut out).is_ok() {
            indexes.push((name, out.into_inner()));
        }
    }
    indexes
}
