//! Loop devices: an image as a block device.
//!
//! Two loop devices on one image would be two file systems that know nothing of each other. So the
//! image's open file is locked before a device gets it. The device holds that very open file until it
//! is cleared, whatever becomes of this process, and so it holds the lock.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{
    CWD, FileType, FlockOperation, Mode, OFlags, flock, fstat, makedev, mknodat, openat,
};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::failure::Failure;
use crate::sys;

/// How long an image may be on its way from one user to none.
const PATIENCE: Duration = Duration::from_mins(1);
/// Another process of the host can be faster with a free device, but not every time.
const ATTEMPTS: u32 = 64;
/// Blocks of the devices, in bytes: those of the file systems on them.
const BLOCK: u32 = 4096;

/// Two threads would be given the same free device.
static CHOICE: Mutex<()> = Mutex::new(());

/// The block device of an image, made unless the image has one. Opened for reading; it is there as
/// long as this descriptor or a mount of it.
pub(super) fn device(image: &OwnedFd) -> Result<OwnedFd, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        match flock(image, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return attach(image),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(Failure::of("flock")(error)),
        }
        if let Some(device) = find(image)? {
            return Ok(device);
        }
        // It is being attached, or being cleared.
        if Instant::now() > deadline {
            let busy = "it is locked, but no loop device has it";
            return Err(Failure::of("flock")(io::Error::new(io::ErrorKind::ResourceBusy, busy)));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Attaches an image that is locked.
fn attach(image: &OwnedFd) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let control = openat(CWD, "/dev/loop-control", flags, Mode::empty())
        .map_err(Failure::of("open(/dev/loop-control)"))?;
    let _choice = CHOICE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut attempt = 1;
    loop {
        let number =
            sys::loop_get_free(control.as_fd()).map_err(Failure::of("ioctl(LOOP_CTL_GET_FREE)"))?;
        let device = open(number, OFlags::RDWR).map_err(Failure::of("open(loop device)"))?;
        match configure(&device, image) {
            Ok(()) => {
                // Hosts can forbid to mount what somebody has open for writing.
                return open(number, OFlags::RDONLY).map_err(Failure::of("open(loop device)"));
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(error) => return Err(Failure::of("ioctl(LOOP_CONFIGURE)")(error)),
        }
    }
}

/// Without direct I/O a loop device says of a write that it was done when the host's disk had room for
/// only the first part of it, and what the sandbox has would be twice in memory.
fn configure(device: &OwnedFd, image: &OwnedFd) -> io::Result<()> {
    let no_direct = || {
        let problem = "the file system of the data directory takes no direct I/O";
        io::Error::new(io::ErrorKind::Unsupported, problem)
    };
    match sys::loop_configure(device.as_fd(), image.as_fd(), BLOCK) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(no_direct()),
        Ok(()) if !sys::loop_backing(device.as_fd())?.direct => Err(no_direct()),
        other => other,
    }
}

/// The loop device that has the image, if one has.
fn find(image: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    let wanted = fstat(image).map_err(Failure::of("fstat"))?;
    Ok(all()?.remove(&(wanted.st_dev, wanted.st_ino)))
}

/// The loop devices in use, by the device and inode numbers of their files. As long as one is open here
/// it is not cleared; what is said of it then stays true.
pub(super) fn all() -> Result<HashMap<(u64, u64), OwnedFd>, Failure> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/sys/block").map_err(Failure::of("read(/sys/block)"))? {
        let entry = entry.map_err(Failure::of("read(/sys/block)"))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop")?.parse().ok());
        let Some(number) = number else { continue };
        // Only a device with a file has this directory.
        if !entry.path().join("loop").is_dir() {
            continue;
        }
        if let Ok(device) = open(number, OFlags::RDONLY)
            && let Ok(backing) = sys::loop_backing(device.as_fd())
        {
            found.insert(backing.file, device);
        }
    }
    Ok(found)
}

fn open(number: u32, access: OFlags) -> io::Result<OwnedFd> {
    let flags = access | OFlags::CLOEXEC;
    match openat(CWD, format!("/dev/loop{number}"), flags, Mode::empty()) {
        Err(Errno::NOENT) => open_own_node(number, flags),
        other => Ok(other?),
    }
}

/// Opens a device for which `/dev` has no node (it is not the kernel's own), by a node in a file system
/// that nobody else sees and that is gone with the descriptor.
fn open_own_node(number: u32, flags: OFlags) -> io::Result<OwnedFd> {
    let text = fs::read_to_string(format!("/sys/block/loop{number}/dev"))?;
    let numbers = text.trim().split_once(':').and_then(|(major, minor)| {
        Some(makedev(major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    let device = numbers.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let place = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    mknodat(&place, "loop", FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device)?;
    Ok(openat(&place, "loop", flags, Mode::empty())?)
}
