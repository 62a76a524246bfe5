//! Room on the host's disk: how images in use give back what was deleted in them, and what they do when
//! it gets scarce.
//!
//! Images are sparse, so all of them together can be promised more than there is. A file system that
//! finds no room for what it has accepted already takes no more writes until it is mounted anew. So
//! before it comes to that, sandboxes are told that their disks are full: all that is free in a file
//! system becomes its own reserve, which nothing but its own structures may use.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{StatVfs, fstat, fstatvfs, major, minor, statvfs};

use super::failure::Failure;
use super::mount;
use crate::UpperLimits;
use crate::uppers::IMAGE;

/// How often somebody looks.
const PERIOD: Duration = Duration::from_secs(1);
/// The same where the host has little room.
const HASTE: Duration = Duration::from_millis(100);
/// So much more than it needs an image may hold before that is worth the work.
const EXCESS: u64 = 32 << 20;
/// The same where the host has little room.
const LITTLE: u64 = 1 << 20;
/// So many blocks are never made the reserve: what a start needs, and more.
const SPARE: u64 = 64;
/// An image is not trimmed more often.
const PAUSE: Duration = Duration::from_secs(5);

/// Mounts of uppers in use, and a thread that looks after the room that they take.
#[derive(Debug)]
pub(super) struct Room {
    shared: Arc<Shared>,
    /// Once there is something to look after.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    kept: Mutex<HashMap<String, Kept>>,
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Room {
    pub(super) fn new(dir: &Path) -> Self {
        let shared = Shared {
            dir: dir.to_owned(),
            kept: Mutex::default(),
            closed: Mutex::default(),
            changed: Condvar::new(),
        };
        Self { shared: Arc::new(shared), thread: Mutex::default() }
    }

    /// The mount of an upper that is in use.
    pub(super) fn get(&self, id: &str) -> Option<io::Result<OwnedFd>> {
        self.shared.kept().get(id).map(|kept| kept.mount.try_clone())
    }

    /// The same, kept no longer.
    pub(super) fn take(&self, id: &str) -> Option<OwnedFd> {
        self.shared.kept().remove(id).map(|kept| kept.mount)
    }

    /// Keeps the mount of an upper that is in use.
    pub(super) fn keep(&self, id: &str, mount: OwnedFd) {
        let kept = Kept { mount, closed: None, trimmed: None, remainder: 0 };
        self.shared.kept().insert(id.to_owned(), kept);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            // Without the thread, room comes back when an upper rests.
            *thread = std::thread::Builder::new()
                .name("kiln-disk-room".to_owned())
                .spawn(move || shared.look_after())
                .ok();
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *self.shared.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.changed.notify_all();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // What it holds is in use until it ends; a panic of it is told by itself.
        let _ended = thread.map(JoinHandle::join);
    }
}

/// Gives back to the host what is free in a file system that takes writes. In one that met an error,
/// what is free in memory may be in use on the disk.
pub(super) fn give_back(mount: &OwnedFd) -> Result<u64, Failure> {
    if mount::is_sound(mount) { mount::trim(mount) } else { Ok(0) }
}

/// An image in use.
#[derive(Debug)]
struct Kept {
    mount: OwnedFd,
    /// Whether its free blocks are its reserve; `None` before that was said.
    closed: Option<bool>,
    trimmed: Option<Instant>,
    /// What it held beyond its need after that.
    remainder: u64,
}

/// Lets the file system have all that is free in it until somebody looks: overlayfs makes directories
/// before it can be used, also where a sandbox has filled its disk.
pub(super) fn open_reserve(mount: &OwnedFd) {
    if fstatvfs(mount).is_ok_and(|found| found.f_bavail < SPARE) {
        let _overlayfs_will_say = reserve(mount, 0);
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_after(&self) {
        let mut scarce = false;
        let mut period = PERIOD;
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        while !*closed {
            drop(closed);
            if let Ok(host) = statvfs(&self.dir) {
                let free = host.f_bavail * host.f_frsize;
                let least = UpperLimits::least_free(host.f_blocks * host.f_frsize);
                // Half as much closes them, or they would be opened and closed all the time.
                scarce = free < if scarce { least } else { least / 2 };
                let little = free < 4 * least;
                period = if little { HASTE } else { PERIOD };
                self.look(scarce, if little { LITTLE } else { EXCESS });
            }
            closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
            if !*closed {
                let waited = self.changed.wait_timeout(closed, period);
                closed = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn look(&self, scarce: bool, excess: u64) {
        let ids: Vec<String> = self.kept().keys().cloned().collect();
        for id in ids {
            let file = self.dir.join(format!("{id}{IMAGE}"));
            let excessive = {
                let mut kept = self.kept();
                let Some(kept) = kept.get_mut(&id) else { continue };
                let Ok(found) = fstatvfs(&kept.mount) else { continue };
                if kept.closed != Some(scarce) {
                    // As few as the kernel does by itself: a 50th, and no more than 4096
                    // (`ext4_set_resv_clusters`).
                    let few = (found.f_blocks / 50).min(4096);
                    let most = found.f_bfree.saturating_sub(SPARE);
                    let said = reserve(&kept.mount, if scarce { most } else { few.min(most) });
                    kept.closed = said.is_ok().then_some(scarce);
                }
                let rested = kept.trimmed.is_none_or(|last| last.elapsed() >= PAUSE);
                let excessive = rested && beyond(&found, &file) > kept.remainder + excess;
                excessive.then(|| kept.mount.try_clone())
            };
            let Some(Ok(mount)) = excessive else { continue };
            // Without the lock: this can take a while.
            let _the_next_time = give_back(&mount);
            let remainder = fstatvfs(&mount).map_or(0, |found| beyond(&found, &file));
            if let Some(kept) = self.kept().get_mut(&id) {
                kept.trimmed = Some(Instant::now());
                kept.remainder = remainder;
            }
        }
    }
}

/// The bytes that an image holds beyond what the files in it need.
fn beyond(found: &StatVfs, image: &Path) -> u64 {
    let held = fs::metadata(image).map_or(0, |image| image.blocks() * 512);
    held.saturating_sub((found.f_blocks - found.f_bfree) * found.f_frsize)
}

/// Makes so many blocks of a file system its reserve.
fn reserve(mount: &OwnedFd, blocks: u64) -> io::Result<()> {
    let device = fstat(mount)?.st_dev;
    let link = fs::read_link(format!("/sys/dev/block/{}:{}", major(device), minor(device)))?;
    let name = link.file_name().ok_or(io::ErrorKind::NotFound)?;
    let file = Path::new("/sys/fs/ext4").join(name).join("reserved_clusters");
    fs::write(file, blocks.to_string())
}
