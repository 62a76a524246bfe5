//! Uppers on this host: directories, and both kinds together.

#![expect(clippy::print_stdout, reason = "a test says what it skips")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use kiln_roots::{
    DirectoryUppers, HostUppers, ImageUppers, UpperKind, UpperLimits, UpperStore as _, conformance,
};
use rustix::fs::{CWD, IFlags, RenameFlags, ioctl_getflags, ioctl_setflags, renameat_with};

#[test]
fn conform() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP making device nodes needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let uppers = DirectoryUppers::open(&dir.path().join("uppers")).unwrap();
    conformance::upper_store::check(&uppers);
    let mode = fs::metadata(dir.path().join("uppers")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "setuid files of sandboxes must be out of reach");
}

#[test]
fn opening_finishes_what_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    for left in [".making-1-0-a/u", ".removing-1-0-b/u/x/y", "kept/u"] {
        fs::create_dir_all(dir.path().join(left)).unwrap();
    }
    let uppers = DirectoryUppers::open(dir.path()).unwrap();
    assert_eq!(uppers.list().unwrap(), ["kept"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A sandbox at work can put a link in the place of a directory at any moment.
#[test]
fn what_is_counted_never_leads_out() {
    let dir = tempfile::tempdir().unwrap();
    let uppers = DirectoryUppers::open(&dir.path().join("uppers")).unwrap();
    uppers.create("x", UpperLimits::default()).unwrap();
    let upper = uppers.path("x").unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for number in 0..100 {
        fs::write(outside.join(number.to_string()), "").unwrap();
    }
    for name in ["a", "b", "c"] {
        fs::create_dir(upper.join(name)).unwrap();
        std::os::unix::fs::symlink(&outside, upper.join(format!("{name}-link"))).unwrap();
    }
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                for name in ["a", "b", "c"] {
                    let (one, other) = (upper.join(name), upper.join(format!("{name}-link")));
                    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        let most = (0..2000)
            .map(|_| uppers.usage("x").map(|usage| usage.inodes))
            .max_by_key(|inodes| inodes.as_ref().map_or(u64::MAX, |inodes| *inodes));
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        let most = most.unwrap().unwrap();
        assert!(most < 20, "{most} files in an upper of 7");
    });
}

#[test]
fn remove_marked_files() {
    let dir = tempfile::tempdir().unwrap();
    let uppers = DirectoryUppers::open(dir.path()).unwrap();
    uppers.create("x", UpperLimits::default()).unwrap();
    let upper = uppers.path("x").unwrap();
    fs::create_dir(upper.join("d")).unwrap();
    for name in ["d/immutable", "d/append"] {
        fs::write(upper.join(name), "x").unwrap();
    }
    for (name, mark) in
        [("d/immutable", IFlags::IMMUTABLE), ("d/append", IFlags::APPEND), ("d", IFlags::IMMUTABLE)]
    {
        let file = fs::File::open(upper.join(name)).unwrap();
        // ext4 refuses a set of flags that lacks those it gave the file itself.
        let marked = ioctl_getflags(&file).and_then(|flags| ioctl_setflags(&file, flags | mark));
        if let Err(error) = marked {
            println!("SKIP the file system or the rights do not allow marks: {error}");
            break;
        }
    }
    assert!(uppers.remove("x").unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn both_kinds_live_beside_each_other() {
    let dir = tempfile::tempdir().unwrap();
    if let Err(error) = ImageUppers::probe(dir.path()) {
        println!("SKIP this host has no images: {error}");
        return;
    }
    let limits = UpperLimits { bytes: 40 << 20 };
    for (id, kind) in [("d", UpperKind::Directory), ("i", UpperKind::Image)] {
        let uppers = HostUppers::open(dir.path(), kind).unwrap();
        assert_eq!(uppers.bounded(), kind == UpperKind::Image);
        uppers.create(id, limits).unwrap();
        fs::write(uppers.path(id).unwrap().join("name"), id).unwrap();
    }
    assert!(dir.path().join("d/u/name").is_file());
    assert!(dir.path().join("i.ext4").is_file());
    for kind in [UpperKind::Directory, UpperKind::Image] {
        let uppers = HostUppers::open(dir.path(), kind).unwrap();
        assert_eq!(uppers.list().unwrap(), ["d", "i"]);
        for id in ["d", "i"] {
            let changes = uppers.path(id).unwrap();
            assert_eq!(fs::read_to_string(changes.join("name")).unwrap(), id);
            assert!(uppers.create(id, limits).is_err(), "{id} is taken, whatever kind it is");
        }
    }
    let uppers = HostUppers::open(dir.path(), UpperKind::Image).unwrap();
    for id in ["d", "i"] {
        assert!(uppers.remove(id).unwrap());
        assert!(!uppers.exists(id).unwrap());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_host_conforms_with_either_kind() {
    let dir = tempfile::tempdir().unwrap();
    if let Err(error) = ImageUppers::probe(dir.path()) {
        println!("SKIP this host has no images: {error}");
        return;
    }
    for kind in [UpperKind::Directory, UpperKind::Image] {
        let uppers = HostUppers::open(&dir.path().join("uppers"), kind).unwrap();
        conformance::upper_store::check(&uppers);
    }
}
