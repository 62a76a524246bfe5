//! Images on a disk that is full: clear answers in a short time, and nothing spoilt for later.

#![expect(clippy::print_stdout, reason = "a test says what it skips")]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_roots::{ImageUppers, UpperLimits, UpperStore as _};
use kiln_types::ErrorCode;

/// More than a busy host needs, less than any wait that nothing can end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A small file system, mounted. Unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(directory: &Path) -> Option<Self> {
        let (image, place) = (directory.join("disk.img"), directory.join("data"));
        fs::create_dir(&place).unwrap();
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).status();
        let mounted =
            || Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place).status();
        if !made.is_ok_and(|made| made.success()) || !mounted().is_ok_and(|it| it.success()) {
            println!("SKIP no loop device can be mounted");
            return None;
        }
        Some(Self(place))
    }

    /// Leaves about so much room.
    fn fill(&self, free_kib: u64) {
        let filler = self.0.join("filler");
        let mut file = OpenOptions::new().create(true).append(true).open(filler).unwrap();
        loop {
            let found = rustix::fs::statvfs(&self.0).unwrap();
            let over = (found.f_bavail * found.f_frsize).saturating_sub(free_kib << 10);
            if over < 4096 || file.write(&vec![1; over.min(1 << 20) as usize]).is_err() {
                return;
            }
        }
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn the_first_image_is_refused_soon_and_made_later() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(dir.path()) else { return };
    let limits = UpperLimits { bytes: 40 << 20 };
    let mut refused = 0;
    for free_kib in [0, 20, 60, 120, 200, 300, 400, 600, 1000] {
        let uppers = ImageUppers::open(&disk.0.join("uppers")).unwrap();
        disk.fill(free_kib);
        // The stock meets the same, and whoever wants an image waits for nothing of it.
        uppers.keep_ready(limits, 2).unwrap();
        let began = Instant::now();
        let made = uppers.create("x", limits);
        let time = began.elapsed();
        assert!(time < PATIENCE, "with {free_kib} KiB the answer takes {time:?}: {made:?}");
        if let Err(error) = &made {
            refused += 1;
            let text = error.to_string();
            assert_eq!(
                error.code(),
                ErrorCode::StorageFull,
                "with {free_kib} KiB: {text} {error:?}"
            );
        } else {
            assert!(uppers.remove("x").unwrap());
        }
        disk.empty();
        uppers.create("y", limits).unwrap();
        let changes = uppers.path("y").unwrap();
        let mut file = File::create(changes.join("file")).unwrap();
        file.write_all(b"there is room").unwrap();
        file.sync_all().unwrap();
        drop((file, changes));
        assert!(uppers.remove("y").unwrap());
    }
    assert!(refused > 0, "the disk was never full");
}

#[test]
fn images_in_stock_that_met_a_full_disk_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(dir.path()) else { return };
    let limits = UpperLimits { bytes: 40 << 20 };
    let uppers = ImageUppers::open(&disk.0.join("uppers")).unwrap();
    uppers.keep_ready(limits, 2).unwrap();
    uppers.create("first", limits).unwrap();
    disk.fill(0);
    // What the file systems in stock have to write meets the full disk.
    rustix::fs::sync();
    disk.empty();
    for id in ["a", "b", "c"] {
        uppers.create(id, limits).unwrap();
        let mut file = File::create(uppers.path(id).unwrap().join("file")).unwrap();
        file.write_all(b"there is room").unwrap();
        file.sync_all().unwrap();
    }
    for id in ["first", "a", "b", "c"] {
        assert!(uppers.remove(id).unwrap());
    }
}

/// The number of files below a directory, all of which are read.
fn count(directory: &Path) -> std::io::Result<usize> {
    let mut found = 1;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        found += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(found)
}

/// A file system that meets the full disk has written some of what it committed and not the rest: all of
/// it is there again as soon as there is room, and until then that is what errors say.
#[test]
fn what_was_committed_outlives_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(dir.path()) else { return };
    let limits = UpperLimits { bytes: 40 << 20 };
    let (mut refused, mut opened) = (0, 0);
    for free_kib in [0, 30, 60, 90, 150, 300, 500] {
        let uppers = ImageUppers::open(&disk.0.join("uppers")).unwrap();
        uppers.create("x", limits).unwrap();
        let committed = |round: u32| -> std::io::Result<()> {
            let changes = uppers.path("x").map_err(std::io::Error::other)?;
            for number in 0..20 {
                let place = changes.join(format!("{round}/{number}"));
                fs::create_dir_all(&place)?;
                File::open(&place)?.sync_all()?;
            }
            // What is deleted and not committed is there after all, and whole.
            fs::remove_dir_all(changes.join("0"))
        };
        fs::create_dir_all(uppers.path("x").unwrap().join("0/0")).unwrap();
        rustix::fs::sync();
        disk.fill(free_kib);
        let done = (1..50).take_while(|round| committed(*round).is_ok()).count();
        let _may_fail = uppers.rest("x");
        match uppers.open("x") {
            Ok(_) => opened += 1,
            Err(error) => {
                refused += 1;
                assert_eq!(error.code(), ErrorCode::StorageFull, "{free_kib} KiB: {error:?}");
            }
        }
        disk.empty();
        uppers.rest("x").ok();
        let mount = uppers.open("x").unwrap();
        let changes = uppers.path("x").unwrap();
        for round in 1..=done {
            for number in 0..20 {
                let place = changes.join(format!("{round}/{number}"));
                assert!(
                    place.is_dir(),
                    "{free_kib} KiB, {done} rounds: {} is lost",
                    place.display()
                );
            }
        }
        assert!(count(&changes).unwrap() > done * 20, "{free_kib} KiB");
        drop((mount, changes));
        assert!(uppers.remove("x").unwrap());
    }
    println!("opened {opened}, refused {refused}");
    assert!(opened > 0, "the host's disk was always too full");
}

/// Guests are told before the host is full, and may go on when it is not any more.
#[test]
fn a_scarce_host_is_a_full_disk_inside() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(dir.path()) else { return };
    let uppers = ImageUppers::open(&disk.0.join("uppers")).unwrap();
    uppers.create("x", UpperLimits { bytes: 40 << 20 }).unwrap();
    let changes = uppers.path("x").unwrap();
    let write = |name: &str| {
        let mut file = File::create(changes.join(name))?;
        file.write_all(&vec![1; 1 << 20])?;
        file.sync_all()
    };
    write("before").unwrap();
    disk.fill(1 << 10);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = write("during");
        match answer {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            _ => assert!(Instant::now() < deadline, "no end of room: {answer:?}"),
        }
        let _made = fs::remove_file(changes.join("during"));
    }
    disk.empty();
    while let Err(error) = write("after") {
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(Instant::now() < deadline, "it stays full");
    }
    for name in ["before", "after"] {
        assert_eq!(fs::read(changes.join(name)).unwrap(), vec![1; 1 << 20]);
    }
    drop(changes);
    assert!(uppers.remove("x").unwrap());
}
