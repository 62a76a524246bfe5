//! Layers that ask for more than a machine has: each is refused, in bounded memory.
//!
//! Each runs in a process of its own, whose peak of memory is what the kernel says at its end.
#![allow(clippy::print_stdout, reason = "the report of a test")]

use std::io::{self, Cursor, Read, Write as _};
use std::process::Command;

use kiln_adversary::{Archive, Header, pax_records};
use kiln_layer::{Index, LayerError, Limits, read_layer, write_index};

/// The most memory that reading a layer with [`limits`] may take.
const MOST_KIB: u64 = 300 << 10;

/// The default ones, made smaller where an honest default takes long to reach.
fn limits() -> Limits {
    Limits {
        entries: 50_000,
        metadata_bytes: 64 << 20,
        tar_bytes: 512 << 20,
        inflate_free_bytes: 32 << 20,
        ..Limits::default()
    }
}

/// Pieces without an end, each made from its number.
struct Endless<F> {
    make: F,
    number: u64,
    piece: Cursor<Vec<u8>>,
}

impl<F: Fn(u64) -> Vec<u8>> Endless<F> {
    fn new(make: F) -> Self {
        Self { make, number: 0, piece: Cursor::default() }
    }
}

impl<F: Fn(u64) -> Vec<u8>> Read for Endless<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.piece = Cursor::new((self.make)(self.number));
            self.number += 1;
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A header that announces `size` bytes.
fn announced(size: u64) -> Vec<u8> {
    let field = [&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat();
    Header::new(b'0', "big").bytes(124, &field).sealed().to_vec()
}

type Bomb = (&'static str, fn() -> Box<dyn Read>, &'static str);

const BOMBS: [Bomb; 16] = [
    (
        "gzip",
        || {
            let zeros = gzip(&vec![0; 4 << 20]);
            Box::new(
                Cursor::new(gzip(&announced(1 << 40))).chain(Endless::new(move |_| zeros.clone())),
            )
        },
        "`inflate_ratio`",
    ),
    (
        "zstd",
        || {
            let head = zstd::encode_all(&announced(1 << 40)[..], 1).unwrap();
            let zeros = zstd::encode_all(&vec![0; 4 << 20][..], 1).unwrap();
            Box::new(Cursor::new(head).chain(Endless::new(move |_| zeros.clone())))
        },
        "`inflate_ratio`",
    ),
    (
        "entries",
        || {
            Box::new(Endless::new(|number| {
                Archive::new().file(format!("d/{number}"), "").unfinished()
            }))
        },
        "`entries`",
    ),
    (
        "implied directories",
        || {
            Box::new(Endless::new(|number| {
                let path = format!("{number}/{}f", "d/".repeat(200));
                Archive::new().file(path, "").unfinished()
            }))
        },
        "`entries`",
    ),
    (
        "hardlinks",
        || {
            let file = Archive::new().file("f", "x").unfinished();
            Box::new(Cursor::new(file).chain(Endless::new(|number| {
                Archive::new().hardlink(format!("l{number}"), "f").unfinished()
            })))
        },
        "`entries`",
    ),
    (
        "the same name again and again",
        || Box::new(Endless::new(|_| Archive::new().file("f", "x").unfinished())),
        "`entries`",
    ),
    (
        "xattrs of many entries",
        || {
            Box::new(Endless::new(|number| {
                let value = vec![b'v'; 60_000];
                Archive::new()
                    .pax(&[("SCHILY.xattr.user.a", &value), ("SCHILY.xattr.user.b", &value)])
                    .file(format!("{number}"), "")
                    .unfinished()
            }))
        },
        "`metadata_bytes`",
    ),
    (
        "xattrs of one entry",
        || {
            let records: Vec<(String, &str)> =
                (0..9_000).map(|n| (format!("SCHILY.xattr.user.name-{n}"), "value")).collect();
            Box::new(Cursor::new(Archive::new().pax(&records).file("f", "").end()))
        },
        "`xattr_bytes`",
    ),
    (
        "an extended header without an end",
        || {
            let records = pax_records(&[("comment", vec![b'c'; 4096])]);
            let header = Header::new(b'x', "x").size(4 << 30).sealed().to_vec();
            Box::new(Cursor::new(header).chain(Endless::new(move |_| records.clone())))
        },
        "`pax_bytes`",
    ),
    (
        "extended headers without an entry",
        || {
            Box::new(Endless::new(|_| {
                Archive::new().global(&[("comment", vec![b'c'; 500_000])]).unfinished()
            }))
        },
        "`tar_bytes`",
    ),
    (
        "a path of many components",
        || {
            let path = "d/".repeat(2000) + "f";
            Box::new(Cursor::new(Archive::new().file(path, "").end()))
        },
        "`depth`",
    ),
    (
        "symlinks to ever new directories",
        || {
            Box::new(Endless::new(|number| {
                let target = format!("{number}/{}", "d/".repeat(200));
                Archive::new().symlink("s", target).file("s/f", "").unfinished()
            }))
        },
        "`entries`",
    ),
    (
        "a long way through a symlink, again and again",
        || {
            Box::new(Endless::new(|number| {
                let start = Archive::new().dir("d/").symlink("s", "d/../".repeat(800));
                let start = if number == 0 { start } else { Archive::new() };
                start.file(format!("s/{number}"), "").unfinished()
            }))
        },
        "more than 20000000 steps",
    ),
    (
        "symlinks out of ever new directories",
        || {
            Box::new(Endless::new(|number| {
                let names: Vec<String> = (0..300).map(|at| format!("{number}-{at}/..")).collect();
                let target = names.join("/");
                Archive::new().symlink("s", target).file("s/f", "").unfinished()
            }))
        },
        "too many directories that no entry describes",
    ),
    (
        "a file of endless zeros",
        || Box::new(Cursor::new(announced(1 << 60)).chain(io::repeat(0))),
        "`tar_bytes`",
    ),
    (
        "files whose sizes add up",
        || {
            Box::new(Endless::new(|number| {
                Archive::new().file(format!("{number}"), vec![0; 1 << 20]).unfinished()
            }))
        },
        "`tar_bytes`",
    ),
];

/// Reads one bomb and says how: the child's part.
fn child(name: &str) {
    let (_, bomb, _) = BOMBS.iter().find(|(bomb, ..)| *bomb == name).unwrap();
    let error = read_layer(bomb(), io::sink(), &limits()).unwrap_err();
    assert!(error.is_bad_layer());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("\nPEAK {}\nERROR {error}", peak.trim().trim_end_matches(" kB"));
}

#[test]
fn heavy_bombs_are_refused_in_bounded_memory() {
    if let Ok(name) = std::env::var("KILN_TEST_BOMB") {
        return child(&name);
    }
    for (name, _, named) in BOMBS {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "heavy_bombs_are_refused_in_bounded_memory", "--nocapture"])
            .env("KILN_TEST_BOMB", name)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{name}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let after = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let peak: u64 = after("PEAK ").parse().unwrap();
        let error = after("ERROR ");
        println!("{name}: {} MiB, {error}", peak >> 10);
        assert!(error.contains(named), "{name}: {error}");
        assert!(peak < MOST_KIB, "{name}: {peak} KiB");
    }
}

#[test]
fn symlinks_below_cannot_ask_for_endless_directories() {
    let index_of = |tar: &[u8], parents: &[Index]| -> Result<Vec<u8>, LayerError> {
        let layer = read_layer(tar, io::sink(), &Limits::default())?;
        let mut out = Cursor::new(Vec::new());
        write_index(&layer.tree, layer.diff_id, layer.tar_size, parents, &mut out)?;
        Ok(out.into_inner())
    };
    let stack = |symlinks: u32| {
        let (mut below, mut above) = (Archive::new().dir("./"), Archive::new());
        for number in 0..symlinks {
            let target = format!("{number}x/{}", "d/".repeat(1000));
            below = below.symlink(format!("l{number}"), target);
            above = above.file(format!("l{number}/f"), "");
        }
        let below = index_of(&below.end(), &[]).unwrap();
        index_of(&above.end(), &[Index::from_bytes(below, "below").unwrap()])
    };
    let error = stack(120).unwrap_err().to_string();
    assert!(error.contains("more than 100000 directories"), "{error}");
    stack(5).unwrap();

    // A name that no entry could have is none on the way of a symlink, either.
    for target in ["x".repeat(256), ".wh.x".to_owned()] {
        let below = Archive::new().dir("./").symlink("l", &target).end();
        let below = Index::from_bytes(index_of(&below, &[]).unwrap(), "below").unwrap();
        let error = index_of(&Archive::new().file("l/f", "").end(), &[below]).unwrap_err();
        assert!(error.to_string().contains("cannot be a name"), "{error}");
    }
}
