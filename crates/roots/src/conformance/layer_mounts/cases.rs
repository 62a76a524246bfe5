//! Layers with all that a layer can have.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_layer::{Index, Limits, read_tar_file, write_index};
use kiln_types::DiffId;
use tar::{Builder, EntryType, Header};

use crate::LayerSource;

/// A table entry: layers for one root, base first.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is special about it.
    pub name: &'static str,
    /// Its layers.
    pub layers: Vec<LayerSource>,
    /// Names that the root has at least, besides the runtime's own.
    pub names: usize,
}

type Fill = fn(&mut Layer);

/// Writes the files of all cases to `dir` and gives the table.
pub fn all(dir: &Path) -> Vec<Case> {
    let table: &[(&str, usize, &[Fill])] = &[
        ("nothing", 0, &[|_| ()]),
        ("kinds of files", 16, &[kinds]),
        ("modes, owners and times", 20, &[attributes]),
        ("hardlinks", 9, &[hardlinks]),
        ("xattrs", 8, &[xattrs]),
        ("holes", 6, &[holes]),
        ("names", 12, &[names]),
        ("a deep tree", 240, &[deep]),
        ("a large directory", 10_000, &[large]),
        ("a root of its own", 1, &[root]),
        ("device nodes", 2, &[devices]),
        ("implied directories", 6, &[implied_base, implied_top]),
        ("below a symlink", 5, &[linked_base, linked_top]),
        ("below a symlink of the same layer", 12, &[merged_base, merged_top]),
        ("links into lower layers", 5, &[links_base, links_top]),
        ("whiteouts and opaque directories", 12, &[hidden_base, hidden_middle, hidden_top]),
    ];
    table
        .iter()
        .enumerate()
        .map(|(number, (name, names, fills))| {
            let layers = chain(dir, &format!("case{number}"), fills);
            Case { name, layers, names: *names }
        })
        .collect()
}

/// Layers on top of each other, base first; each with the index that belongs to its place.
fn chain(dir: &Path, name: &str, fills: &[Fill]) -> Vec<LayerSource> {
    let mut tars: Vec<(DiffId, PathBuf)> = Vec::new();
    let mut layers: Vec<LayerSource> = Vec::new();
    for (number, fill) in fills.iter().enumerate() {
        let tar = dir.join(format!("{name}-{number}.tar"));
        let mut layer = Layer { tar: Builder::new(File::create_new(&tar).expect("tar")) };
        fill(&mut layer);
        layer.tar.into_inner().expect("end of the tar").flush().expect("flush");
        let opened = File::open(&tar).expect("tar");
        let read = read_tar_file(&opened, &Limits::default()).expect("a layer");
        tars.push((read.diff_id, tar));
        let parents: Vec<Index> =
            layers.iter().map(|layer| Index::open(&layer.index).expect("index")).collect();
        let index = dir.join(format!("{name}-{number}.erofs"));
        let out = File::create_new(&index).expect("index");
        let info = write_index(&read.tree, read.diff_id, read.tar_size, &parents, out)
            .expect("write the index");
        let device = |wanted: &DiffId| {
            let found = tars.iter().find(|(diff_id, _)| diff_id == wanted);
            found.expect("a tar of this chain").1.clone()
        };
        layers.push(LayerSource { index, devices: info.devices.iter().map(device).collect() });
    }
    layers
}

/// A tar in the making.
struct Layer {
    tar: Builder<File>,
}

impl Layer {
    fn put(&mut self, kind: EntryType, path: impl AsRef<OsStr>, mode: u32, data: &[u8]) {
        self.put_as(kind, path, mode, (0, 0), 1_700_000_000, data);
    }

    fn put_as(
        &mut self,
        kind: EntryType,
        path: impl AsRef<OsStr>,
        mode: u32,
        (uid, gid): (u64, u64),
        mtime: u64,
        data: &[u8],
    ) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(mtime);
        header.set_size(data.len() as u64);
        self.tar.append_data(&mut header, Path::new(path.as_ref()), data).expect("append");
    }

    fn file(&mut self, path: impl AsRef<OsStr>, data: &[u8]) {
        self.put(EntryType::Regular, path, 0o644, data);
    }

    fn directory(&mut self, path: impl AsRef<OsStr>, mode: u32) {
        self.put(EntryType::Directory, path, mode, &[]);
    }

    fn link(&mut self, kind: EntryType, path: impl AsRef<OsStr>, target: impl AsRef<OsStr>) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_mtime(1_600_000_000);
        header.set_size(0);
        let (path, target) = (Path::new(path.as_ref()), Path::new(target.as_ref()));
        self.tar.append_link(&mut header, path, target).expect("append a link");
    }

    fn symlink(&mut self, path: impl AsRef<OsStr>, target: impl AsRef<OsStr>) {
        self.link(EntryType::Symlink, path, target);
    }

    fn hardlink(&mut self, path: &str, target: &str) {
        self.link(EntryType::Link, path, target);
    }

    /// Records for the entry that follows.
    fn pax(&mut self, records: &[(&str, &[u8])]) {
        self.tar.append_pax_extensions(records.iter().copied()).expect("records");
    }

    fn device(&mut self, kind: EntryType, path: &str, major: u32, minor: u32) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o666);
        header.set_size(0);
        header.set_device_major(major).expect("major");
        header.set_device_minor(minor).expect("minor");
        self.tar.append_data(&mut header, path, io::empty()).expect("append");
    }
}

fn kinds(layer: &mut Layer) {
    layer.directory("d", 0o755);
    layer.directory("d/empty", 0o755);
    for size in [0_usize, 1, 511, 512, 513, 4095, 4096, 4097, 1_048_576, 1_048_579] {
        let data: Vec<u8> = (0..size).map(|at| (at % 251) as u8 + 1).collect();
        layer.file(format!("d/{size}"), &data);
    }
    layer.symlink("d/absolute", "/etc/hosts");
    layer.symlink("d/dangling", "../../nowhere/at all");
    layer.symlink("d/long", "x/".repeat(1000));
    layer.put(EntryType::Fifo, "d/fifo", 0o620, &[]);
}

fn attributes(layer: &mut Layer) {
    layer.directory("a", 0o2775);
    for mode in [0, 0o111, 0o400, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777] {
        layer.put(EntryType::Regular, format!("a/file-{mode:o}"), mode, b"x");
        layer.directory(format!("a/dir-{mode:o}"), mode);
        layer.file(format!("a/dir-{mode:o}/inner"), b"x");
    }
    for (number, owner) in
        [(1, 0), (0, 1), (1000, 1001), (65_535, 65_534), (65_536, 70_000)].into_iter().enumerate()
    {
        let kinds =
            [(EntryType::Regular, "f"), (EntryType::Directory, "d"), (EntryType::Fifo, "p")];
        for (kind, name) in kinds {
            layer.put_as(kind, format!("a/{name}{number}"), 0o4755, owner, 1, &[]);
        }
    }
    for (number, time) in
        ["0.000000001", "1700000000.123456789", "-1000.5", "8000000000"].into_iter().enumerate()
    {
        for (kind, name) in [(EntryType::Regular, "f"), (EntryType::Directory, "d")] {
            layer.pax(&[("mtime", time.as_bytes())]);
            layer.put(kind, format!("a/time-{name}{number}"), 0o755, &[]);
        }
        layer.pax(&[("mtime", time.as_bytes())]);
        layer.symlink(format!("a/time-l{number}"), "x");
    }
}

fn hardlinks(layer: &mut Layer) {
    layer.directory("one", 0o755);
    layer.directory("two", 0o755);
    layer.put_as(EntryType::Regular, "one/a", 0o4755, (5, 6), 77, b"shared");
    layer.hardlink("two/b", "one/a");
    layer.hardlink("c", "two/b");
    layer.symlink("one/s", "target");
    layer.hardlink("two/s", "one/s");
    layer.put(EntryType::Fifo, "one/p", 0o600, &[]);
    layer.hardlink("two/p", "one/p");
    // The name is replaced after it was linked to: the link keeps what was there.
    layer.file("replaced", b"old");
    layer.hardlink("kept", "replaced");
    layer.file("replaced", b"new");
}

/// `cap_net_raw=ep`, as `setcap` writes it (revision 2).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// `u::rwx,u:1000:r-x,g::r-x,m::rwx,o::---`.
const LIST: &[u8] = &[
    2, 0, 0, 0, //
    1, 0, 7, 0, 255, 255, 255, 255, //
    2, 0, 5, 0, 0xe8, 3, 0, 0, //
    4, 0, 5, 0, 255, 255, 255, 255, //
    16, 0, 7, 0, 255, 255, 255, 255, //
    32, 0, 0, 0, 255, 255, 255, 255,
];

fn xattrs(layer: &mut Layer) {
    layer.pax(&[("SCHILY.xattr.user.dir", b"value"), ("SCHILY.xattr.user.empty", b"")]);
    layer.directory("x", 0o755);
    layer.pax(&[("SCHILY.xattr.security.capability", CAPABILITY)]);
    layer.put_as(EntryType::Regular, "x/ping", 0o4755, (3, 4), 5, b"program");
    layer.hardlink("x/ping-too", "x/ping");
    layer.pax(&[("SCHILY.xattr.user.binary", b"a\nb\0c"), ("SCHILY.xattr.user.z", &[7; 3000])]);
    layer.file("x/binary", b"");
    layer.pax(&[("SCHILY.xattr.system.posix_acl_access", LIST)]);
    layer.put(EntryType::Regular, "x/list", 0o770, b"");
    layer.pax(&[
        ("SCHILY.xattr.system.posix_acl_access", LIST),
        ("SCHILY.xattr.system.posix_acl_default", LIST),
    ]);
    layer.directory("x/lists", 0o770);
    layer.put(EntryType::Regular, "x/lists/inherits-nothing", 0o600, b"");
    layer.directory("x/lists/nor-this", 0o700);
}

fn holes(layer: &mut Layer) {
    let mut data = vec![0_u8; 5 << 20];
    layer.file("zeros", &data);
    data[1 << 20..(1 << 20) + 5].copy_from_slice(b"in it");
    layer.file("middle", &data);
    data[0] = 1;
    layer.file("ends", &data);
    layer.file("small", &[0; 100]);
    layer.file("block", &[0; 4096]);
    let mut tail = vec![0_u8; 8193];
    tail[8192] = 9;
    layer.file("tail", &tail);
}

fn names(layer: &mut Layer) {
    layer.directory("n", 0o755);
    for name in [
        OsStr::from_bytes(b"not \xff\xfe UTF-8"),
        OsStr::new("new\nline"),
        OsStr::new("tab\tand \u{1b}[31m colour"),
        OsStr::new("-rf"),
        OsStr::new(" "),
        OsStr::new("\u{e4}\u{f6}\u{fc} \u{1f980}"),
        OsStr::new("..."),
        OsStr::new(".making-1-0-x"),
        OsStr::new("tree"),
        OsStr::new("record"),
        OsStr::new("*?[]{}$(x)`y`"),
    ] {
        let mut path = PathBuf::from("n");
        path.push(name);
        layer.file(path, name.as_bytes());
    }
    layer.file(format!("n/{}", "x".repeat(255)), b"longest");
    layer.directory(format!("n/{}", "d".repeat(255)), 0o755);
    layer.file(format!("n/{}/{}", "d".repeat(255), "e".repeat(255)), b"two of them");
}

fn deep(layer: &mut Layer) {
    let mut path = String::new();
    for level in 0..240 {
        path.push_str(&format!("level-{level:08}/"));
        layer.directory(path.trim_end_matches('/'), 0o700 + level % 64);
    }
    layer.file(format!("{path}bottom"), b"reached");
    layer.hardlink("link-to-the-bottom", &format!("{path}bottom"));
}

fn large(layer: &mut Layer) {
    layer.directory("many", 0o755);
    for number in 0..10_000 {
        layer.file(format!("many/entry-{number}"), number.to_string().as_bytes());
    }
}

fn root(layer: &mut Layer) {
    layer.pax(&[("SCHILY.xattr.user.root", b"yes")]);
    layer.put_as(EntryType::Directory, "./", 0o750, (7, 8), 12_345, &[]);
    layer.file("below", b"x");
}

fn devices(layer: &mut Layer) {
    layer.directory("nodes", 0o755);
    layer.device(EntryType::Char, "nodes/null", 1, 3);
    layer.device(EntryType::Block, "nodes/disk", 8, 0);
    layer.file("nodes/file", b"stays");
}

fn implied_base(layer: &mut Layer) {
    layer.put_as(EntryType::Directory, "./", 0o711, (9, 9), 99, &[]);
    layer.pax(&[("SCHILY.xattr.user.kept", b"yes")]);
    layer.put_as(EntryType::Directory, "var", 0o1777, (3, 4), 1234, &[]);
    layer.directory("var/lib", 0o750);
    layer.file("var/lib/old", b"old");
}

fn implied_top(layer: &mut Layer) {
    layer.file("var/lib/new", b"new");
    layer.file("made/by/nobody", b"x");
}

fn linked_base(layer: &mut Layer) {
    layer.directory("usr", 0o755);
    layer.put_as(EntryType::Directory, "usr/lib", 0o751, (1, 2), 33, &[]);
    layer.file("usr/lib/first", b"1");
    layer.symlink("lib", "usr/lib");
    layer.symlink("outside", "/../../../../tmp");
}

fn linked_top(layer: &mut Layer) {
    layer.file("lib/second", b"2");
    layer.file("lib/.wh.first", b"");
    layer.file("outside/stays-inside", b"3");
}

/// Symlinks that are there when the entries below them come.
fn merged_base(layer: &mut Layer) {
    layer.directory("usr", 0o755);
    layer.put_as(EntryType::Directory, "usr/lib", 0o751, (1, 2), 33, &[]);
    layer.symlink("lib", "usr/lib");
    layer.symlink("lib64", "/../lib");
    layer.file("lib/first", b"1");
    layer.file("lib64/second", b"2");
    layer.hardlink("usr/second-too", "lib64/second");
    layer.symlink("changes", "usr");
    layer.file("changes/before", b"3");
    layer.symlink("changes", "made/by nobody");
    layer.file("changes/after", b"4");
}

fn merged_top(layer: &mut Layer) {
    layer.symlink("own", "lib64/deep/er");
    layer.file("own/third", b"5");
    layer.hardlink("own/first-too", "lib/first");
    layer.symlink("beside", "usr");
    layer.file("beside/.wh.before", b"");
}

fn links_base(layer: &mut Layer) {
    layer.put_as(EntryType::Regular, "lower", 0o4711, (11, 12), 13, b"from below");
    layer.put_as(EntryType::Regular, "gone", 0o644, (1, 1), 1, b"hidden, not lost");
}

fn links_top(layer: &mut Layer) {
    layer.directory("d", 0o755);
    layer.hardlink("d/one", "lower");
    layer.hardlink("d/two", "lower");
    layer.hardlink("d/saved", "gone");
    layer.file(".wh.gone", b"");
}

fn hidden_base(layer: &mut Layer) {
    for directory in ["keep", "empty-me", "be-a-file", "replace", "deep", "deep/er", "deep/er/est"]
    {
        layer.directory(directory, 0o755);
        layer.file(format!("{directory}/a"), directory.as_bytes());
        layer.file(format!("{directory}/b"), b"b");
    }
    layer.file("be-a-directory", b"x");
    layer.file("gone", b"x");
    layer.symlink("link", "keep");
}

fn hidden_middle(layer: &mut Layer) {
    layer.directory("keep", 0o700);
    layer.file("keep/.wh.a", b"");
    layer.directory("empty-me", 0o711);
    layer.file("empty-me/.wh..wh..opq", b"");
    layer.file("empty-me/c", b"c");
    layer.file(".wh.gone", b"");
    layer.file("be-a-file", b"now a file");
    layer.directory("be-a-directory", 0o755);
    layer.file("be-a-directory/inside", b"x");
    layer.directory("deep", 0o755);
    layer.directory("deep/er", 0o755);
    layer.file("deep/er/.wh.est", b"");
    // A whiteout in a directory that only this layer has.
    layer.directory("alone", 0o755);
    layer.file("alone/.wh.nothing", b"");
    layer.file("alone/something", b"x");
    layer.file(".wh.never-was-there", b"");
}

fn hidden_top(layer: &mut Layer) {
    layer.file("gone", b"is back");
    layer.directory("replace", 0o755);
    layer.file(".wh.replace", b"");
    layer.file("replace/new", b"n");
    layer.directory("deep/er/est", 0o755);
    layer.file("deep/er/est/again", b"x");
    layer.directory("link", 0o755);
    layer.file("link/is-a-directory", b"x");
    layer.file("alone/.wh.something", b"");
}
