//! Trees on disk with everything that archives can hold.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev};

use super::Abilities;
use crate::random::Random;

/// What is in a tree so far, by path below its root.
pub(super) struct Grown<'g> {
    root: &'g Path,
    can: Abilities,
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
    all: usize,
}

impl<'g> Grown<'g> {
    /// Fills the empty directory `root` with what `can` be stored.
    pub(super) fn fill(root: &'g Path, can: Abilities, random: &mut Random) {
        let directories = vec![PathBuf::new()];
        let mut tree = Self { root, can, directories, files: Vec::new(), all: 0 };
        for _ in 0..6 + random.below(20) {
            tree.one(random);
        }
        // What is put into a directory changes its time.
        for directory in tree.directories.clone().iter().rev() {
            tree.attributes(directory, true, random);
        }
    }

    fn one(&mut self, random: &mut Random) {
        let Some(path) = self.name(random) else { return };
        let full = self.root.join(&path);
        match random.below(12) {
            0..=2 => {
                fs::create_dir(&full).expect("the name is new");
                self.directories.push(path);
                return;
            }
            3 => {
                let long = "t".repeat(self.can.link - 5);
                let targets = ["a", "../x y", "/etc/passwd", "nowhere/at/all", &long];
                symlink(random.pick(&targets), &full).expect("the name is new");
            }
            4 => {
                let bytes = b"not \xff\xfe UTF-8";
                symlink(OsStr::from_bytes(bytes), &full).expect("the name is new");
            }
            5 | 6 if !self.files.is_empty() => {
                let target = random.pick(&self.files);
                if target.as_os_str().len() + 2 > self.can.link {
                    return;
                }
                fs::hard_link(self.root.join(target), &full).expect("the name is new");
                return;
            }
            7 if self.can.nodes => {
                let (kind, device) = match random.below(3) {
                    0 => (FileType::Fifo, 0),
                    1 => (FileType::CharacterDevice, makedev(1 + random.below(200) as u32, 7)),
                    _ => (FileType::BlockDevice, makedev(8, random.below(250) as u32)),
                };
                rustix::fs::mknodat(CWD, &full, kind, Mode::from(0o600), device)
                    .expect("the test runs as root");
            }
            8 => {
                // Holes everywhere, stored as zeros.
                let file = File::create_new(&full).expect("the name is new");
                file.write_all_at(b"in the middle", 40_000).expect("there is room");
                file.set_len(70_000 + random.below(1000) as u64).expect("there is room");
                self.files.push(path.clone());
            }
            _ => {
                let size = *random.pick(&[0, 1, 511, 512, 513, 5000, 10_240]);
                let data: Vec<u8> = (0..size).map(|_| random.number() as u8).collect();
                fs::write(&full, data).expect("the name is new");
                self.files.push(path.clone());
            }
        }
        self.attributes(&path, false, random);
    }

    fn name(&mut self, random: &mut Random) -> Option<PathBuf> {
        self.all += 1;
        let mut name: Vec<u8> = match random.below(8) {
            0 => b"not \xff\xfe UTF-8 ".to_vec(),
            1 => "\u{e4} \u{1f980}\n".into(),
            2 => b"-r *\\".to_vec(),
            3 => vec![b'n'; 1 + random.below(self.can.component)],
            4 => b"..x".to_vec(),
            _ => b"f".to_vec(),
        };
        name.extend_from_slice(self.all.to_string().as_bytes());
        let path = random.pick(&self.directories).join(OsString::from(OsStr::from_bytes(&name)));
        // With `./` in front and `/` behind.
        (path.as_os_str().len() + 3 <= self.can.path).then_some(path)
    }

    fn attributes(&self, path: &Path, directory: bool, random: &mut Random) {
        let full =
            if path.as_os_str().is_empty() { self.root.to_owned() } else { self.root.join(path) };
        let ids = if self.can.large_ids { 4_000_000 } else { 2_097_152 };
        let (uid, gid) = (random.below(ids) as u32, random.below(70_000) as u32);
        lchown(&full, Some(uid), Some(gid)).expect("the test runs as root");
        let link = full.is_symlink();
        if !link {
            let mode = *random.pick(&[0o644, 0o755, 0, 0o4711, 0o2750, 0o1777, 0o7777, 0o400]);
            rustix::fs::chmod(&full, Mode::from(mode)).expect("the test runs as root");
        }
        if self.can.xattrs && (directory || full.is_file()) && !link && random.one_in(3) {
            for (name, value) in [("user.a", &b"line\nzero\0end"[..]), ("user.\u{e4}=%", b"1")] {
                rustix::fs::setxattr(&full, name, value, XattrFlags::empty())
                    .expect("it was tried before");
            }
        }
        let mut seconds = random.below(4_000_000_000) as i64;
        if self.can.early && random.one_in(6) {
            seconds = -1 - seconds / 3;
        }
        let nanoseconds = if seconds < 0 { 0 } else { random.below(1_000_000_000) as i64 };
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &full, &times, AtFlags::SYMLINK_NOFOLLOW)
            .expect("the test runs as root");
    }
}
