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
