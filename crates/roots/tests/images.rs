//! `ImageUppers` on this host: the loop devices behind them, and what becomes of them.

#![expect(clippy::print_stdout, reason = "a test says what it skips")]

#[path = "support/kernel.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_roots::{
    ErofsMounts, HostUppers, ImageUppers, Roots, UpperKind, UpperLimits, UpperStore, conformance,
};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use support::{Userns, probe};

const LIMITS: UpperLimits = UpperLimits { bytes: 64 << 20 };

/// A directory for uppers; `None`, said, where images are not possible.
fn place() -> Option<tempfile::TempDir> {
    if !probe() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    match ImageUppers::probe(dir.path()) {
        Ok(()) => Some(dir),
        Err(error) => {
            println!("SKIP this host has no images: {error}");
            None
        }
    }
}

/// The files below `dir` that loop devices have, by the devices' numbers.
fn attached(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").unwrap() {
        let path = entry.unwrap().path();
        if let Ok(file) = fs::read_to_string(path.join("loop/backing_file"))
            && Path::new(file.trim()).starts_with(dir)
        {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.push((name, file.trim().to_owned()));
        }
    }
    found
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn conform() {
    let Some(dir) = place() else { return };
    let uppers = ImageUppers::open(&dir.path().join("uppers")).unwrap();
    conformance::upper_store::check(&uppers);
    // The same with images from the stock.
    uppers.keep_ready(UpperLimits { bytes: 256 << 20 }, 2).unwrap();
    conformance::upper_store::check(&uppers);
    drop(uppers);
    eventually("no loop device is left", || attached(dir.path()).is_empty());
    assert_eq!(fs::read_dir(dir.path().join("uppers")).unwrap().count(), 0);
}

#[test]
fn a_probe_leaves_nothing() {
    let Some(dir) = place() else { return };
    eventually("no loop device is left", || attached(dir.path()).is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_root_outlives_the_store_and_keeps_its_device() {
    let Some(dir) = place() else { return };
    let userns = Userns::new(700_000);
    let roots = |uppers: Arc<dyn UpperStore>| {
        Roots::new(dir.path(), Arc::new(ErofsMounts::new()), uppers).unwrap()
    };
    let uppers = dir.path().join("uppers");
    let first = roots(Arc::new(ImageUppers::open(&uppers).unwrap()));
    first.uppers().create("s", LIMITS).unwrap();
    let root = first.mount(&[], "s", userns.fd(), 700_000, false).unwrap();
    // As a daemon that is killed: all that it keeps is gone, the sandbox's root is not.
    drop(first);
    assert_eq!(attached(dir.path()).len(), 1);

    let second = roots(Arc::new(ImageUppers::open(&uppers).unwrap()));
    let owner = Some(rustix::fs::Uid::from_raw(700_042));
    rustix::fs::chownat(&root, "etc/hosts", owner, None, AtFlags::empty()).unwrap();
    let changes = second.uppers().path("s").unwrap();
    assert_eq!(fs::metadata(changes.join("etc/hosts")).unwrap().uid(), 42, "seen at once");
    assert_eq!(attached(dir.path()).len(), 1, "one image never has two devices");
    drop(changes);

    // The sandbox ends, and is removed.
    drop(root);
    assert!(second.uppers().remove("s").unwrap());
    eventually("no loop device is left", || attached(dir.path()).is_empty());
}

#[test]
fn what_was_changed_survives_the_end_of_everything() {
    let Some(dir) = place() else { return };
    let userns = Userns::new(700_000);
    let uppers = dir.path().join("uppers");
    for round in 0..3_u32 {
        let store = Arc::new(ImageUppers::open(&uppers).unwrap());
        if round == 0 {
            store.create("s", LIMITS).unwrap();
        }
        let roots = Roots::new(dir.path(), Arc::new(ErofsMounts::new()), store).unwrap();
        let root = roots.mount(&[], "s", userns.fd(), 700_000, false).unwrap();
        let found = statat(&root, "etc/hosts", AtFlags::empty()).unwrap().st_uid;
        assert_eq!(found, 700_000 + round);
        let owner = Some(rustix::fs::Uid::from_raw(700_000 + round + 1));
        rustix::fs::chownat(&root, "etc/hosts", owner, None, AtFlags::empty()).unwrap();
        drop((root, roots));
        if round == 1 {
            eventually("no loop device is left", || attached(dir.path()).is_empty());
        }
    }
    assert!(ImageUppers::open(&uppers).unwrap().remove("s").unwrap());
}

/// Stopping, reading and starting may follow each other faster than a device is cleared.
#[test]
fn uses_in_quick_succession_and_at_once() {
    let Some(dir) = place() else { return };
    let uppers = ImageUppers::open(&dir.path().join("uppers")).unwrap();
    uppers.create("s", LIMITS).unwrap();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (uppers, dir) = (&uppers, dir.path());
            scope.spawn(move || {
                for round in 0..25 {
                    let directory = uppers.open("s").unwrap();
                    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                    let name = format!("u/{number}-{round}");
                    openat(&directory, name, flags, Mode::RUSR).unwrap();
                    drop(directory);
                    uppers.rest("s").unwrap();
                    let changes = uppers.path("s").unwrap();
                    assert!(changes.join(format!("{number}-{round}")).exists());
                    assert!(attached(dir).len() <= 1);
                }
            });
        }
    });
    assert_eq!(fs::read_dir(uppers.path("s").unwrap()).unwrap().count(), 100);
    assert!(uppers.remove("s").unwrap());
    eventually("no loop device is left", || attached(dir.path()).is_empty());
}

#[test]
fn removal_frees_the_space_of_a_full_image() {
    let Some(dir) = place() else { return };
    let uppers = HostUppers::open(&dir.path().join("uppers"), UpperKind::Image).unwrap();
    uppers.create("s", UpperLimits { bytes: 400 << 20 }).unwrap();
    let file = dir.path().join("uppers/s.ext4");
    let fresh = fs::metadata(&file).unwrap();
    assert_eq!(fresh.len(), 400 << 20);
    // Its journal and the maps of what is free.
    assert!(fresh.blocks() * 512 < 6 << 20, "{} blocks in a new image", fresh.blocks());

    let upper = uppers.path("s").unwrap();
    fs::write(upper.join("big"), vec![9; 200 << 20]).unwrap();
    fs::File::open(upper.join("big")).unwrap().sync_all().unwrap();
    assert!(fs::metadata(&file).unwrap().blocks() * 512 > 200 << 20);
    // What is deleted inside goes back to the host.
    fs::remove_file(upper.join("big")).unwrap();
    fs::File::open(&*upper).and_then(|top| Ok(rustix::fs::syncfs(&top)?)).unwrap();
    eventually("the space is free", || fs::metadata(&file).unwrap().blocks() * 512 < 20 << 20);
    drop(upper);
    assert!(uppers.remove("s").unwrap());
    assert!(!file.exists());
    eventually("no loop device is left", || attached(dir.path()).is_empty());
}

/// overlayfs makes directories at each mount; a disk that is full inside still has room for them.
#[test]
fn a_full_image_can_be_mounted_again() {
    let Some(dir) = place() else { return };
    let userns = Userns::new(700_000);
    let store = Arc::new(ImageUppers::open(&dir.path().join("uppers")).unwrap());
    store.create("s", LIMITS).unwrap();
    let roots = Roots::new(dir.path(), Arc::new(ErofsMounts::new()), Arc::clone(&store) as _);
    let roots = roots.unwrap();
    drop(roots.mount(&[], "s", userns.fd(), 700_000, false).unwrap());
    let changes = store.path("s").unwrap();
    let mut size = 1 << 20;
    for number in 0.. {
        // Down to the last block.
        let written = fs::write(changes.join(format!("file-{number}")), vec![7; size]);
        if written.is_err() {
            if size == 1 {
                break;
            }
            size = (size / 16).max(1);
        }
    }
    drop(changes);
    for _ in 0..3 {
        store.rest("s").unwrap();
        drop(roots.mount(&[], "s", userns.fd(), 700_000, false).unwrap());
    }
    assert!(store.remove("s").unwrap());
}

#[test]
fn a_damaged_image_is_an_error_that_names_it() {
    let Some(dir) = place() else { return };
    let uppers = ImageUppers::open(dir.path()).unwrap();
    fs::write(dir.path().join("bad.ext4"), vec![0; 1 << 20]).unwrap();
    let error = uppers.open("bad").unwrap_err().to_string();
    assert!(error.contains("bad.ext4") && error.contains("fsconfig(create)"), "{error}");
    let error = uppers.path("bad").unwrap_err().to_string();
    assert!(error.contains("bad.ext4"), "{error}");
    assert!(uppers.remove("bad").unwrap());
    eventually("no loop device is left", || attached(dir.path()).is_empty());
}

/// More at once than hosts have device nodes for at boot.
#[test]
fn heavy_many_at_once() {
    let Some(dir) = place() else { return };
    let uppers = ImageUppers::open(&dir.path().join("uppers")).unwrap();
    let id = |number: u32| format!("s{number}");
    for number in 0..260 {
        uppers.create(&id(number), LIMITS).unwrap();
    }
    assert_eq!(attached(dir.path()).len(), 260);
    for number in 0..260 {
        fs::write(uppers.path(&id(number)).unwrap().join("name"), id(number)).unwrap();
    }
    for number in 0..260 {
        let changes = uppers.path(&id(number)).unwrap();
        assert_eq!(fs::read_to_string(changes.join("name")).unwrap(), id(number));
        drop(changes);
        assert!(uppers.remove(&id(number)).unwrap());
    }
    eventually("no loop device is left", || attached(dir.path()).is_empty());
}
