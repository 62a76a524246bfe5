//! File systems to make images of: one of each size, made by mke2fs and kept as the few blocks that
//! are not zero.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom, chmodat, fallocate,
    flock, mkdirat, openat, seek,
};
use rustix::io::Errno;

use super::extents::{self, Extent};
use super::failure::Failure;
use super::program::{self, Program};
use super::{device, mount};
use crate::{RootsError, UpperLimits};

/// What every image's file system has, whatever the host's own configuration of mke2fs says.
const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,\
    sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
/// The parts that the kernel can do later, or never since holes read as zeros.
const EXTENDED: &str = "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0,\
    packed_meta_blocks=1";
/// The size of the journal in MiB: the least possible. Each image has these blocks for good.
const JOURNAL: &str = "size=4";
/// A disk of the largest size takes half a second on a quiet host.
const DEADLINE: Duration = Duration::from_mins(1);

/// What a new image begins with.
#[derive(Debug)]
pub(super) struct Template {
    size: u64,
    /// All that is not zero, by its place.
    parts: Vec<(u64, Vec<u8>)>,
    /// What an image has room for on the host from the start.
    fixed: Vec<Extent>,
}

impl Template {
    /// Makes the template of images of `size` bytes, which is in whole MiB, by a file in `dir` that has
    /// no name.
    pub(super) fn make(dir: &Path, size: u64) -> Result<Self, RootsError> {
        let named = |failure: Failure| failure.with(format!("of {} MiB", size >> 20));
        let file = unnamed(dir).map_err(named)?;
        file.set_len(size).map_err(Failure::of("ftruncate")).map_err(named)?;
        if let Err(problem) = format(&file) {
            // What it had no room for may be free again by now, and the other way round.
            let full = problem.contains("No space left on device");
            let full = full.then(|| Errno::NOSPC.into()).or_else(|| no_room(&file, size));
            let failure = full.map(Failure::of("mke2fs"));
            return Err(failure.map_or(RootsError::Format { problem }, named));
        }
        let furnished = furnish(&file).and_then(|()| wait_until_clean(&file));
        // With no room for its blocks, the file system sees a broken disk.
        let named = |failure: Failure| match no_room(&file, size) {
            Some(source) => named(Failure { source, ..failure }),
            None => named(failure),
        };
        furnished.map_err(named)?;
        let parts = parts(&file).map_err(Failure::of("read")).map_err(named)?;
        let fixed = extents::fixed(&file).map_err(Failure::of("read")).map_err(named)?;
        Ok(Self { size, parts, fixed })
    }

    /// A new image, as a file in `dir` that has no name yet. Its blocks are on the disk.
    pub(super) fn image(&self, dir: &Path) -> Result<OwnedFd, Failure> {
        let file = unnamed(dir)?;
        file.set_len(self.size).map_err(Failure::of("ftruncate"))?;
        // On a full host the journal still takes what was done, and gives it back at the next mount.
        for Extent { place, length } in &self.fixed {
            fallocate(&file, FallocateFlags::empty(), *place, *length)
                .map_err(Failure::of("fallocate"))?;
        }
        for (place, bytes) in &self.parts {
            file.write_all_at(bytes, *place).map_err(Failure::of("write"))?;
        }
        // The row of a sandbox outlives a crash of the host; its disk then has to as well.
        file.sync_data().map_err(Failure::of("fdatasync"))?;
        Ok(file.into())
    }
}

/// A file that is gone with its last descriptor, unless it is given a name.
fn unnamed(dir: &Path) -> Result<File, Failure> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file =
        openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR).map_err(Failure::of("open(O_TMPFILE)"))?;
    Ok(File::from(file))
}

/// Runs mke2fs; an error is what it said.
fn format(file: &File) -> Result<(), String> {
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let inode_ratio = UpperLimits::BYTES_PER_INODE.to_string();
    let mke2fs = Program {
        name: "mke2fs",
        package: "e2fsprogs",
        arguments: &[
            "-q",
            "-F",
            "-b",
            "4096",
            "-I",
            "256",
            "-i",
            &inode_ratio,
            "-m",
            "0",
            "-O",
            FEATURES,
            "-J",
            JOURNAL,
            "-E",
            EXTENDED,
            &path,
        ],
        // What the host's own file says must not matter.
        environment: &[("MKE2FS_CONFIG", "/dev/null"), ("LC_ALL", "C")],
        deadline: DEADLINE,
    };
    program::run(&mke2fs)
}

/// The error of a disk that has no room left, if that is what a file of `size` bytes has met.
fn no_room(file: &File, size: u64) -> Option<io::Error> {
    const LEAST: u64 = 1 << 20;
    match fallocate(file, FallocateFlags::KEEP_SIZE, size, LEAST) {
        Err(error @ (Errno::NOSPC | Errno::DQUOT)) => Some(error.into()),
        _ => None,
    }
}

/// Makes the directories that overlayfs works with.
fn furnish(file: &File) -> Result<(), Failure> {
    // An open file of its own: its lock lasts as long as the device does.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let image = openat(CWD, path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(Failure::of("open"))?;
    let top = mount::mount(&device::device(&image)?)?;
    for (name, mode) in [("u", 0o755), ("w", 0o700)] {
        let mode = Mode::from_raw_mode(mode);
        mkdirat(&top, name, mode).map_err(Failure::of("mkdir"))?;
        // The process's umask does not get a say in the mode that the sandbox sees.
        chmodat(&top, name, mode, AtFlags::empty()).map_err(Failure::of("chmod"))?;
    }
    Ok(())
}

/// Waits until the file system is unmounted: a child of this process that was being started may have
/// held it a moment longer.
fn wait_until_clean(file: &File) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        // In this order: once the device is gone, nothing is written any more.
        let gone = match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(Errno::WOULDBLOCK) => false,
            Err(error) => return Err(Failure::of("flock")(error)),
        };
        if is_clean(file).map_err(Failure::of("read"))? {
            return Ok(());
        }
        if gone {
            let unwritten = io::Error::other("its last blocks could not be written");
            return Err(Failure::of("umount")(unwritten));
        }
        if Instant::now() > deadline {
            let busy = io::Error::new(io::ErrorKind::TimedOut, "it stays in use");
            return Err(Failure::of("umount")(busy));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether the file system says of itself that its journal is empty and that it has met no error.
fn is_clean(file: &File) -> io::Result<bool> {
    const RECOVER: u32 = 4;
    const ERRORS: u16 = 2;
    let (mut features, mut state) = ([0; 4], [0; 2]);
    file.read_exact_at(&mut features, 1024 + 0x60)?;
    file.read_exact_at(&mut state, 1024 + 0x3A)?;
    let open = u32::from_le_bytes(features) & RECOVER != 0;
    Ok(!open && u16::from_le_bytes(state) & ERRORS == 0)
}

fn parts(file: &File) -> io::Result<Vec<(u64, Vec<u8>)>> {
    const BLOCK: usize = 4096;
    let mut parts: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut end = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(end)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(parts),
            Err(error) => return Err(error.into()),
        };
        end = seek(file, SeekFrom::Hole(start))?;
        let mut place = start;
        let mut block = [0; BLOCK];
        while place < end {
            let length = (end - place).min(BLOCK as u64) as usize;
            file.read_exact_at(&mut block[..length], place)?;
            if block[..length].iter().any(|byte| *byte != 0) {
                match parts.last_mut() {
                    Some((at, bytes)) if *at + bytes.len() as u64 == place => {
                        bytes.extend_from_slice(&block[..length]);
                    }
                    _ => parts.push((place, block[..length].to_vec())),
                }
            }
            place += length as u64;
        }
    }
}
