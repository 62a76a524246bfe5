//! Both ways to mount a layer, and what they must have in common.

#![expect(clippy::print_stdout, reason = "a test says what it skips")]

#[path = "support/kernel.rs"]
mod support;

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_roots::conformance::layer_mounts::{self, cases, listing};
use kiln_roots::{
    DirectoryMounts, DirectoryUppers, ErofsMounts, LayerMounts, LayerSource, Roots, RootsError,
    UpperLimits,
};
use support::{Userns, layer, probe};

const BASE: u32 = 700_000;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn directories_conform() {
    if !probe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = layer(dir.path(), "base", &[("hello", "world\n")]);
    let layers = dir.path().join("layers");
    let mounts = DirectoryMounts::open(&layers).unwrap();
    layer_mounts::check(&mounts, &source);
    assert!(mounts.bytes(&source.index).unwrap() > 0);
    let mode = fs::metadata(&layers).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "setuid files of images must be out of reach");
}

#[test]
fn the_probe_agrees_with_this_host() {
    if !probe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    ErofsMounts::probe(dir.path()).unwrap();
    assert_eq!(names(dir.path()), Vec::<String>::new());
    ErofsMounts::probe(Path::new("/proc/self")).unwrap_err();
}

/// Every layer of the table, seen through an overlay, is the same in both ways.
#[test]
fn both_show_the_same() {
    if !probe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let userns = Userns::new(BASE);
    let table = cases::all(dir.path());
    let modes: [Arc<dyn LayerMounts>; 2] = [
        Arc::new(ErofsMounts::new()),
        Arc::new(DirectoryMounts::open(&dir.path().join("layers")).unwrap()),
    ];
    let shown = modes.map(|mounts| {
        let data = dir.path().join(mounts.mode());
        fs::create_dir(&data).unwrap();
        let uppers = Arc::new(DirectoryUppers::open(&data.join("uppers")).unwrap());
        let roots = Roots::new(&data, mounts.clone(), uppers).unwrap();
        let list = |number: usize, layers: &[LayerSource]| {
            let upper = format!("case{number}");
            roots.uppers().create(&upper, UpperLimits::default()).unwrap();
            listing::listing(&roots, layers, &upper, userns.fd(), BASE)
        };
        let nothing = list(table.len(), &[]).len();
        let shown: Vec<Vec<String>> = table
            .iter()
            .enumerate()
            .map(|(number, case)| {
                let shown = list(number, &case.layers);
                assert!(shown.len() >= nothing + case.names, "{}: {shown:#?}", case.name);
                for layer in &case.layers {
                    assert_eq!(mounts.verify(layer).unwrap(), Vec::new(), "{}", case.name);
                }
                shown
            })
            .collect();
        shown
    });
    for (number, case) in table.iter().enumerate() {
        let [erofs, directory] = &shown;
        for (erofs, directory) in erofs[number].iter().zip(&directory[number]) {
            assert_eq!(erofs, directory, "{}", case.name);
        }
        assert_eq!(erofs[number].len(), directory[number].len(), "{}", case.name);
    }
}

/// A layer with a file of each kind, laid out; and the directory that it is in.
fn laid_out(dir: &Path) -> (DirectoryMounts, LayerSource, PathBuf) {
    let files =
        [("bin/tool", "a program"), ("bin/second", "another"), ("etc/name", "x"), ("l@", "bin")];
    let source = layer(dir, "base", &files);
    let layers = dir.join("layers");
    let mounts = DirectoryMounts::open(&layers).unwrap();
    mounts.prepare(&source).unwrap();
    let name = names(&layers).pop().unwrap();
    (mounts, source, layers.join(name).join("tree"))
}

type Change = fn(&Path);

#[test]
fn every_change_is_found_and_repaired() {
    if !probe() {
        return;
    }
    let changes: [(&str, Change); 11] = [
        ("bin/tool", |tree| {
            let file = fs::OpenOptions::new().write(true).open(tree.join("bin/tool")).unwrap();
            file.write_all_at(b"A", 3).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
            file.set_modified(time).unwrap();
        }),
        ("bin/tool", |tree| {
            let file = fs::OpenOptions::new().write(true).open(tree.join("bin/tool")).unwrap();
            file.set_len(3).unwrap();
        }),
        ("bin/tool", |tree| fs::remove_file(tree.join("bin/tool")).unwrap()),
        ("bin/new", |tree| fs::write(tree.join("bin/new"), "x").unwrap()),
        ("bin/tool", |tree| {
            fs::set_permissions(tree.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        }),
        ("etc", |tree| std::os::unix::fs::chown(tree.join("etc"), Some(7), None).unwrap()),
        ("l", |tree| {
            fs::remove_file(tree.join("l")).unwrap();
            symlink("/etc", tree.join("l")).unwrap();
        }),
        ("etc", |tree| {
            fs::remove_dir_all(tree.join("etc")).unwrap();
            symlink("/etc", tree.join("etc")).unwrap();
        }),
        ("bin/second", |tree| {
            fs::remove_file(tree.join("bin/second")).unwrap();
            fs::hard_link(tree.join("bin/tool"), tree.join("bin/second")).unwrap();
        }),
        ("bin/tool", |tree| {
            let none = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(tree.join("bin/tool"), "user.x", b"y", none).unwrap();
        }),
        ("/", |tree| {
            fs::set_permissions(tree, fs::Permissions::from_mode(0o700)).unwrap();
        }),
    ];
    for (number, (entry, change)) in changes.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let (mounts, source, tree) = laid_out(dir.path());
        assert_eq!(mounts.verify(&source).unwrap(), Vec::new());
        change(&tree);
        let damage = mounts.verify(&source).unwrap();
        assert!(damage.iter().any(|damage| damage.entry == entry), "{number}: {damage:?}");
        mounts.forget(&source.index).unwrap();
        mounts.prepare(&source).unwrap();
        assert_eq!(mounts.verify(&source).unwrap(), Vec::new(), "{number}");
    }
}

#[test]
fn opening_removes_what_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    for left in [".making-1-0-a.0123456789abcdef/tree/x", ".removing-1-0-b/tree/x/y"] {
        fs::create_dir_all(dir.path().join(left)).unwrap();
    }
    DirectoryMounts::open(dir.path()).unwrap();
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[test]
fn sweeps_remove_what_is_gone() {
    if !probe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layers = dir.path().join("layers");
    let sources: Vec<LayerSource> = ["a", "b", "c"]
        .into_iter()
        .map(|name| layer(dir.path(), name, &[("hello", name)]))
        .collect();
    let index = |number: usize| std::slice::from_ref(&sources[number].index);
    {
        let mounts = DirectoryMounts::open(&layers).unwrap();
        for source in &sources {
            mounts.prepare(source).unwrap();
        }
        assert_eq!(names(&layers).len(), 3);
        assert!(mounts.sweep(index(0), index(1)).unwrap() > 0);
        assert_eq!(names(&layers).len(), 2);
    }
    // In the other mode, only what is in use stays.
    let mounts = ErofsMounts::beside(&layers).unwrap();
    assert!(mounts.bytes(&sources[1].index).unwrap() > 0);
    assert!(mounts.sweep(index(0), index(1)).unwrap() > 0);
    assert_eq!(names(&layers).len(), 1);
    mounts.forget(&sources[1].index).unwrap();
    assert_eq!(names(&layers), Vec::<String>::new());
}

#[test]
fn a_replaced_index_is_laid_out_anew() {
    if !probe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layers = dir.path().join("layers");
    let mounts = DirectoryMounts::open(&layers).unwrap();
    let source = layer(dir.path(), "l", &[("hello", "one\n")]);
    mounts.prepare(&source).unwrap();
    fs::remove_file(&source.index).unwrap();
    fs::remove_file(&source.devices[0]).unwrap();
    let source = layer(dir.path(), "l", &[("hello", "second\n")]);
    mounts.prepare(&source).unwrap();
    // A sandbox may run on the older one.
    assert_eq!(names(&layers).len(), 2);
    assert_eq!(mounts.verify(&source).unwrap(), Vec::new());
    mounts.forget(&source.index).unwrap();
    assert_eq!(names(&layers), Vec::<String>::new());
}

/// Threads that want one layer at the same time get one directory, made once.
#[test]
fn a_layer_is_laid_out_once() {
    if !probe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let content = "x".repeat(1 << 20);
    let source = layer(dir.path(), "l", &[("a", &content), ("b", &content)]);
    let layers = dir.path().join("layers");
    let mounts = DirectoryMounts::open(&layers).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| mounts.mount(&source).unwrap());
        }
    });
    assert_eq!(names(&layers).len(), 1);
    let tree = layers.join(&names(&layers)[0]).join("tree");
    let made = fs::metadata(&tree).unwrap().ino();
    mounts.prepare(&source).unwrap();
    assert_eq!(fs::metadata(&tree).unwrap().ino(), made);
}

/// An index that lies is refused before anything is made of it.
#[test]
fn a_lying_index_makes_nothing() {
    if !probe() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let replace: [(&str, &[u8], &[u8]); 6] = [
        ("a name that leads up", b"victim-name", b"../../../up"),
        ("an absolute name", b"victim-name", b"/etc/passwd"),
        ("the directory above", b"victim-name", b"..\0\0\0\0\0\0\0\0\0"),
        ("a name in a name", b"victim-name", b"victim/name"),
        ("nothing", b"victim-name", b"\0\0\0\0\0\0\0\0\0\0\0"),
        ("a target that ends early", b"the-target", b"the\0target"),
    ];
    for (what, from, to) in replace {
        let dir = tempfile::tempdir().unwrap();
        let files = [("d/victim-name", "x"), ("d/victim-link@", "the-target")];
        let source = layer(dir.path(), "l", &files);
        let mut bytes = fs::read(&source.index).unwrap();
        let at = bytes.windows(from.len()).position(|found| found == from).expect(what);
        bytes[at..at + to.len()].copy_from_slice(to);
        fs::write(&source.index, bytes).unwrap();
        let layers = dir.path().join("layers");
        let mounts = DirectoryMounts::open(&layers).unwrap();
        let error = mounts.mount(&source).unwrap_err();
        assert!(matches!(error, RootsError::Index { .. }), "{what}: {error:?}");
        assert_eq!(names(&layers), Vec::<String>::new(), "{what}");
    }
    assert_eq!(names(outside.path()), Vec::<String>::new());
}

/// A tar that is not the index's is refused before anything is made of it.
#[test]
fn a_wrong_tar_makes_nothing() {
    if !probe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = layer(dir.path(), "l", &[("hello", "world")]);
    let layers = dir.path().join("layers");
    let mounts = DirectoryMounts::open(&layers).unwrap();
    let tar = &source.devices[0];
    fs::OpenOptions::new().write(true).open(tar).unwrap().set_len(100).unwrap();
    let error = mounts.mount(&source).unwrap_err();
    assert!(matches!(error, RootsError::Mismatch { .. }), "{error:?}");
    let error = mounts.mount(&LayerSource { devices: vec![], ..source.clone() }).unwrap_err();
    assert!(matches!(error, RootsError::Mismatch { .. }), "{error:?}");
    fs::remove_file(tar).unwrap();
    let error = mounts.mount(&source).unwrap_err();
    assert!(matches!(error, RootsError::Io { .. }), "{error:?}");
    assert_eq!(names(&layers), Vec::<String>::new());
}

/// A disk that is full is an ordinary error, after which nothing is left.
#[test]
fn a_full_disk_leaves_nothing() {
    if !probe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let content = "x".repeat(3 << 20);
    let source = layer(dir.path(), "l", &[("a", "small"), ("b", &content)]);
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let disk = Disk::mount(&small);
    let layers = small.join("layers");
    let mounts = DirectoryMounts::open(&layers).unwrap();
    let error = mounts.prepare(&source).unwrap_err();
    assert_eq!(error.code(), kiln_types::ErrorCode::StorageFull, "{error:?}");
    assert!(error.to_string().contains("`b`"), "{error}");
    assert_eq!(names(&layers), Vec::<String>::new());
    drop(mounts);
    drop(disk);
}

/// A file system of a megabyte.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path) -> Self {
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "kiln-test"])
            .arg(at)
            .status()
            .unwrap();
        assert!(status.success(), "{status}: {}", io::Error::last_os_error());
        Self(at)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let status = std::process::Command::new("umount").arg(self.0).status();
        assert!(status.is_ok_and(|status| status.success()));
    }
}

/// A layer with one file that has an xattr.
fn with_xattr(dir: &Path, name: &str, value: &[u8], mode: u32) -> LayerSource {
    use kiln_layer::{Limits, read_tar_file, write_index};
    let tar = dir.join("x.tar");
    let mut builder = tar::Builder::new(fs::File::create_new(&tar).unwrap());
    let key = format!("SCHILY.xattr.{name}");
    builder.append_pax_extensions([(key.as_str(), value)]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(0);
    builder.append_data(&mut header, "the file", io::empty()).unwrap();
    builder.into_inner().unwrap();
    let read = read_tar_file(&fs::File::open(&tar).unwrap(), &Limits::default()).unwrap();
    let index = dir.join("x.erofs");
    let out = fs::File::create_new(&index).unwrap();
    write_index(&read.tree, read.diff_id, read.tar_size, &[], out).unwrap();
    LayerSource { index, devices: vec![tar] }
}

/// ext4 keeps the xattrs of a file in one block.
#[test]
fn an_xattr_that_the_disk_has_no_place_for_is_named() {
    if !probe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = with_xattr(dir.path(), "user.large", &vec![7; 60_000], 0o644);
    let layers = dir.path().join("layers");
    let mounts = DirectoryMounts::open(&layers).unwrap();
    match mounts.prepare(&source) {
        Ok(()) => println!("SKIP the file system of {} has place for it", dir.path().display()),
        Err(error) => {
            assert_eq!(error.code(), kiln_types::ErrorCode::Internal, "{error:?}");
            let RootsError::LayOut { source, .. } = &error else { panic!("{error:?}") };
            assert!(source.to_string().contains("`user.large` of 60000 bytes"), "{source}");
            assert_eq!(names(&layers), Vec::<String>::new());
        }
    }
}

/// An access list that says no more than the mode is no longer there afterwards, and nothing is amiss.
#[test]
fn an_access_list_that_is_only_a_mode_is_one() {
    if !probe() {
        return;
    }
    let mut list = vec![2, 0, 0, 0];
    for (tag, rights) in [(1_u8, 6_u8), (4, 4), (32, 0)] {
        list.extend([tag, 0, rights, 0, 255, 255, 255, 255]);
    }
    let dir = tempfile::tempdir().unwrap();
    let source = with_xattr(dir.path(), "system.posix_acl_access", &list, 0o640);
    let mounts = DirectoryMounts::open(&dir.path().join("layers")).unwrap();
    mounts.prepare(&source).unwrap();
    assert_eq!(mounts.verify(&source).unwrap(), Vec::new());
}
