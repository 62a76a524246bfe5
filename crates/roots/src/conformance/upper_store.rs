//! The suite for [`UpperStore`].

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};

use crate::{RootsError, UpperStore};

/// Runs the whole suite on an empty store. Needs root: whiteouts are device nodes.
pub fn check(store: &dyn UpperStore) {
    life(store);
    bad_ids(store);
    hostile_content(store);
    deep_tree(store);
    usage(store);
}

/// Create, look, remove.
pub fn life(store: &dyn UpperStore) {
    assert_eq!(store.list().expect("list"), Vec::<String>::new());
    assert!(!store.exists("sbx_1").expect("exists"));
    assert!(matches!(store.path("sbx_1"), Err(RootsError::NoUpper { .. })));
    assert!(matches!(store.open("sbx_1"), Err(RootsError::NoUpper { .. })));
    assert!(!store.remove("sbx_1").expect("removing what is not there is no error"));

    store.create("sbx_1").expect("create");
    store.create("bld_0-1.x").expect("create");
    assert!(matches!(store.create("sbx_1"), Err(RootsError::UpperExists { .. })));
    assert!(store.exists("sbx_1").expect("exists"));
    assert_eq!(store.list().expect("list"), ["bld_0-1.x", "sbx_1"]);

    let path = store.path("sbx_1").expect("path");
    let found = fs::symlink_metadata(&path).expect("the upper's directory is there");
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, 0, 0o755));
    assert_eq!(fs::read_dir(&path).expect("readable").count(), 0, "a new upper is empty");
    let directory = store.open("sbx_1").expect("open");
    for name in ["u", "w"] {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        openat(&directory, name, flags, Mode::empty()).expect("u and w are below the directory");
    }

    assert!(store.remove("sbx_1").expect("remove"));
    assert!(!store.exists("sbx_1").expect("exists"));
    assert_eq!(store.list().expect("list"), ["bld_0-1.x"]);
    store.create("sbx_1").expect("an id can be used again");
    assert_eq!(fs::read_dir(store.path("sbx_1").expect("path")).expect("readable").count(), 0);
    for id in ["sbx_1", "bld_0-1.x"] {
        store.remove(id).expect("remove");
    }
}

/// What is not an id is refused by every call, and nothing is made or removed for it.
pub fn bad_ids(store: &dyn UpperStore) {
    let long = "x".repeat(129);
    for id in ["", ".", "..", ".x", "-x", "_x", "a/b", "../x", "a b", "a\0b", "ä", long.as_str()] {
        let refused = |result: Result<(), RootsError>| {
            assert!(matches!(result, Err(RootsError::BadId { .. })), "{id:?}: {result:?}");
        };
        refused(store.create(id));
        refused(store.exists(id).map(drop));
        refused(store.path(id).map(drop));
        refused(store.open(id).map(drop));
        refused(store.remove(id).map(drop));
        refused(store.usage(id).map(drop));
    }
    assert_eq!(store.list().expect("list"), Vec::<String>::new());
}

/// Removal takes what a sandbox can leave, and touches nothing outside.
pub fn hostile_content(store: &dyn UpperStore) {
    let outside = std::env::temp_dir().join(format!("kiln-canary-{}", std::process::id()));
    fs::create_dir_all(outside.join("inner")).expect("canary");
    fs::write(outside.join("inner/file"), "alive").expect("canary");

    store.create("hostile").expect("create");
    let upper = store.path("hostile").expect("path");
    symlink(&outside, upper.join("link")).expect("symlink");
    symlink("../../..", upper.join("up")).expect("symlink");
    fs::create_dir(upper.join("closed")).expect("directory");
    fs::write(upper.join("closed/file"), "x").expect("file");
    symlink(&outside, upper.join("closed/link")).expect("symlink");
    fs::set_permissions(upper.join("closed"), fs::Permissions::from_mode(0o000)).expect("mode");
    mknodat(CWD, upper.join("whiteout"), FileType::CharacterDevice, Mode::empty(), 0)
        .expect("a whiteout");
    mknodat(CWD, upper.join("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("a fifo");
    let name = std::ffi::OsString::from("new\nline \u{1b}[31m");
    fs::write(upper.join(name), "x").expect("file");
    // Work directories hold entries of mode 0 too.
    let work = upper.parent().expect("u is below the directory").join("w/work/incompat/volatile");
    fs::create_dir_all(work).expect("work");

    assert!(store.remove("hostile").expect("remove"));
    assert_eq!(fs::read_to_string(outside.join("inner/file")).expect("canary"), "alive");
    fs::remove_dir_all(&outside).expect("canary");
    assert_eq!(store.list().expect("list"), Vec::<String>::new());
}

/// Removal neither recurses without end nor runs out of descriptors.
pub fn deep_tree(store: &dyn UpperStore) {
    store.create("deep").expect("create");
    let upper = store.path("deep").expect("path");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = openat(CWD, &upper, flags, Mode::empty()).expect("open");
    for _ in 0..5000 {
        mkdirat(&directory, "d", Mode::RWXU).expect("mkdir");
        directory = openat(&directory, "d", flags, Mode::empty()).expect("open");
    }
    drop(directory);
    for number in 0..300 {
        // Names that a removal might choose itself.
        fs::create_dir_all(upper.join(format!(".removal-{number}/x"))).expect("mkdir");
    }
    assert!(store.remove("deep").expect("remove"));
    assert_eq!(store.list().expect("list"), Vec::<String>::new());
}

/// Usage counts allocated bytes and inodes once.
pub fn usage(store: &dyn UpperStore) {
    store.create("usage").expect("create");
    let empty = store.usage("usage").expect("usage");
    let upper = store.path("usage").expect("path");
    fs::write(upper.join("file"), vec![1; 100_000]).expect("file");
    fs::hard_link(upper.join("file"), upper.join("again")).expect("link");
    let full = store.usage("usage").expect("usage");
    assert_eq!(full.inodes, empty.inodes + 1);
    let grown = full.bytes - empty.bytes;
    assert!((100_000..200_000).contains(&grown), "{grown}");
    assert!(matches!(store.usage("none"), Err(RootsError::NoUpper { .. })));
    store.remove("usage").expect("remove");
}
