//! The suite for [`UpperStore`].

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};

use crate::{RootsError, UpperLimits, UpperStore};

/// What uppers hold where nothing is measured: enough for all that is put into them.
const LIMITS: UpperLimits = UpperLimits { bytes: 256 << 20 };

/// Runs the whole suite on an empty store. Needs root: whiteouts are device nodes.
pub fn check(store: &dyn UpperStore) {
    life(store);
    bad_ids(store);
    hostile_content(store);
    deep_tree(store);
    usage(store);
    rest(store);
    if store.bounded() {
        sizes(store);
        bounds(store);
    }
}

/// Create, look, remove.
pub fn life(store: &dyn UpperStore) {
    assert_eq!(store.list().expect("list"), Vec::<String>::new());
    assert!(!store.exists("sbx_1").expect("exists"));
    assert!(matches!(store.path("sbx_1"), Err(RootsError::NoUpper { .. })));
    assert!(matches!(store.open("sbx_1"), Err(RootsError::NoUpper { .. })));
    assert!(!store.remove("sbx_1").expect("removing what is not there is no error"));

    store.create("sbx_1", LIMITS).expect("create");
    store.create("bld_0-1.x", LIMITS).expect("create");
    assert!(matches!(store.create("sbx_1", LIMITS), Err(RootsError::UpperExists { .. })));
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
    store.create("sbx_1", LIMITS).expect("an id can be used again");
    assert_eq!(fs::read_dir(store.path("sbx_1").expect("path")).expect("readable").count(), 0);
    store.adopt(&["sbx_1".to_owned(), "none".to_owned()]).expect("adopt");
    store.abandon("sbx_1").expect("abandon");
    store.abandon("sbx_1").expect("abandoning twice is no error");
    for id in ["sbx_1", "bld_0-1.x"] {
        assert!(store.remove(id).expect("remove"));
        store.abandon(id).expect("there is nothing to abandon");
        store.adopt(&[id.to_owned()]).expect("there is nothing to adopt");
    }
}

/// What is not an id is refused by every call, and nothing is made or removed for it.
pub fn bad_ids(store: &dyn UpperStore) {
    let long = "x".repeat(129);
    for id in [
        "",
        ".",
        "..",
        ".x",
        "-x",
        "_x",
        "a/b",
        "../x",
        "a b",
        "a\0b",
        "ä",
        "x.ext4",
        long.as_str(),
    ] {
        let refused = |result: Result<(), RootsError>| {
            assert!(matches!(result, Err(RootsError::BadId { .. })), "{id:?}: {result:?}");
        };
        refused(store.create(id, LIMITS));
        refused(store.exists(id).map(drop));
        refused(store.path(id).map(drop));
        refused(store.open(id).map(drop));
        refused(store.rest(id));
        refused(store.abandon(id));
        refused(store.adopt(&[id.to_owned()]));
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

    store.create("hostile", LIMITS).expect("create");
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
    drop(upper);

    assert!(store.remove("hostile").expect("remove"));
    assert_eq!(fs::read_to_string(outside.join("inner/file")).expect("canary"), "alive");
    fs::remove_dir_all(&outside).expect("canary");
    assert_eq!(store.list().expect("list"), Vec::<String>::new());
}

/// Removal neither recurses without end nor runs out of descriptors.
pub fn deep_tree(store: &dyn UpperStore) {
    store.create("deep", LIMITS).expect("create");
    let upper = store.path("deep").expect("path");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = openat(CWD, &*upper, flags, Mode::empty()).expect("open");
    for _ in 0..5000 {
        mkdirat(&directory, "d", Mode::RWXU).expect("mkdir");
        directory = openat(&directory, "d", flags, Mode::empty()).expect("open");
    }
    drop(directory);
    for number in 0..300 {
        // Names that a removal might choose itself.
        fs::create_dir_all(upper.join(format!(".removal-{number}/x"))).expect("mkdir");
    }
    drop(upper);
    assert!(store.remove("deep").expect("remove"));
    assert_eq!(store.list().expect("list"), Vec::<String>::new());
}

/// Usage counts allocated bytes and inodes once.
pub fn usage(store: &dyn UpperStore) {
    store.create("usage", LIMITS).expect("create");
    store.rest("usage").expect("rest");
    let empty = store.usage("usage").expect("usage");
    let upper = store.path("usage").expect("path");
    fs::write(upper.join("file"), vec![1; 1_000_000]).expect("file");
    fs::hard_link(upper.join("file"), upper.join("again")).expect("link");
    let mounted = store.usage("usage").expect("usage of one in use");
    assert_eq!(mounted.inodes, empty.inodes + 1);
    drop(upper);
    let full = store.usage("usage").expect("usage");
    assert_eq!(full.inodes, empty.inodes + 1);
    // A store may keep a record of what was written.
    let grown = full.bytes - empty.bytes;
    assert!((1_000_000..2_000_000).contains(&grown), "{grown}");
    assert!(matches!(store.usage("none"), Err(RootsError::NoUpper { .. })));
    store.remove("usage").expect("remove");
}

/// What was changed is there after a rest, whoever looks, and several may look at once.
pub fn rest(store: &dyn UpperStore) {
    store.create("rest", LIMITS).expect("create");
    for round in 0..3 {
        let directory = store.open("rest").expect("open");
        let content = openat(&directory, "u", OFlags::PATH, Mode::empty()).expect("u");
        mkdirat(&content, format!("d{round}"), Mode::RWXU).expect("mkdir");
        let (one, other) = (store.path("rest").expect("path"), store.path("rest").expect("path"));
        store.rest("rest").expect("rest while it is in use");
        for changes in [&one, &other] {
            assert_eq!(fs::read_dir(changes).expect("readable").count(), round + 1);
        }
        drop((directory, content, one, other));
        store.rest("rest").expect("a second rest is no error");
    }
    assert_eq!(fs::read_dir(store.path("rest").expect("path")).expect("readable").count(), 3);
    store.rest("none").expect("nothing to let go of");
    assert!(store.remove("rest").expect("remove"));
}

/// Sizes that no disk can have are refused, and nothing is made for them.
pub fn sizes(store: &dyn UpperStore) {
    let (least, most) = (UpperLimits::LEAST, UpperLimits::MOST);
    for (bytes, possible) in [
        (0, false),
        (1, false),
        (least - 1, false),
        (least, true),
        (least + 1, true),
        (100 << 20, true),
        (most + 1, false),
        (u64::MAX, false),
    ] {
        match store.create("size", UpperLimits { bytes }) {
            Ok(()) if possible => assert!(store.remove("size").expect("remove"), "{bytes}"),
            Err(RootsError::Size { bytes: named }) if !possible => assert_eq!(named, bytes),
            other => panic!("{bytes}: {other:?}"),
        }
        assert!(!store.exists("size").expect("exists"), "{bytes}");
    }
}

/// Bytes and inodes end at the limit; a full upper can still be read, kept and removed, and another
/// has nothing of it.
pub fn bounds(store: &dyn UpperStore) {
    for bytes in [UpperLimits::LEAST, 64 << 20, 300 << 20] {
        store.create("full", UpperLimits { bytes }).expect("create");
        store.create("other", UpperLimits { bytes }).expect("create");
        let upper = store.path("full").expect("path");

        let (mut files, end) = (0, bytes / 1000);
        let refused = loop {
            assert!(files < end, "{files} files in {bytes} bytes");
            match fs::File::create_new(upper.join(format!("{files:06}-{}", "x".repeat(100)))) {
                Ok(_) => files += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull, "{refused}");
        let possible = bytes / UpperLimits::BYTES_PER_INODE;
        assert!((possible * 9 / 10..=possible).contains(&files), "{files} of {possible} files");
        for number in 0..files / 2 {
            fs::remove_file(upper.join(format!("{number:06}-{}", "x".repeat(100))))
                .expect("remove");
        }

        let mut written = 0;
        let mut file = fs::File::create_new(upper.join("big")).expect("room for one more");
        let block = vec![7; 1 << 20];
        let refused = loop {
            assert!(written <= bytes, "{written} of {bytes} bytes");
            match std::io::Write::write(&mut file, &block) {
                Ok(count) => written += count as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull, "{refused}");
        assert!(written >= bytes * 3 / 4, "{written} of {bytes} bytes");
        file.sync_all().expect("what was taken is kept");
        drop((file, upper));

        store.rest("full").expect("rest");
        let usage = store.usage("full").expect("usage");
        assert!((written..=bytes + (1 << 20)).contains(&usage.bytes), "{usage:?} of {bytes}");
        let again = store.path("full").expect("path");
        assert_eq!(fs::metadata(again.join("big")).expect("it is there").len(), written);
        assert!(fs::write(again.join("more"), &block).is_err(), "it is still full");
        drop(again);

        let other = store.path("other").expect("path");
        fs::write(other.join("file"), &block).expect("the other is not full");
        drop(other);
        for id in ["full", "other"] {
            assert!(store.remove(id).expect("remove"));
        }
    }
}
