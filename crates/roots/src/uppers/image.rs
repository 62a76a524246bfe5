//! Uppers as sparse ext4 images, one each: what a sandbox writes is bounded by its own file system.

mod device;
mod ending;
mod extents;
mod failure;
mod mount;
mod program;
mod ready;
mod room;
mod template;

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, flock, fstatvfs, linkat, openat, statvfs,
};
use rustix::io::Errno;

use super::{Changes, IMAGE, UpperLimits, UpperStore, Usage, at, check_id, make_private};
use crate::RootsError;
use crate::attached::placeless_mounts_are_whole;
use crate::overlay::clone_directory;
use ending::Ending;
use failure::Failure;
use ready::{Fresh, Ready};
use room::Room;
use template::Template;

/// Uppers in `<dir>/<id>.ext4`, each a file system with the directories `u` and `w`.
///
/// The file system is the kernel's from the first block on: it is made here, mounted without a place
/// in any tree, and written to by nobody but the kernel. As long as an upper is in use its mount is
/// kept here too, so that neither the end of a sandbox nor the reading of what it changed has to wait
/// for the disk. A loop device lasts as long as the last mount of its image: a sandbox that outlives
/// this process keeps its own.
#[derive(Debug)]
pub struct ImageUppers {
    dir: PathBuf,
    ready: Ready,
    /// With the mounts of uppers in use.
    room: Room,
    ending: Ending,
}

/// A disk that met an error is used by those who had it then, until they have ended.
const PATIENCE: Duration = Duration::from_secs(20);
/// With less room than this on the host, that is the reason for whatever fails.
const FULL: u64 = 1 << 20;

impl ImageUppers {
    /// The uppers in `dir`, which is made if need be.
    pub fn open(dir: &Path) -> Result<Self, RootsError> {
        make_private(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            ready: Ready::new(dir),
            room: Room::new(dir),
            ending: Ending::default(),
        })
    }

    /// Makes an image in `dir`, mounts it, and leaves nothing of it: whether this host can do that.
    pub fn probe(dir: &Path) -> Result<(), RootsError> {
        let template = Template::make(dir, UpperLimits::LEAST)?;
        let fresh = Fresh::make(&template, dir).map_err(|failure| failure.with("of a probe"))?;
        if placeless_mounts_are_whole() {
            clone_directory(&fresh.mount, "u", "the disk of a probe").map(drop)?;
        }
        Ok(())
    }

    /// Keeps `count` uppers of this size ready, made in the background.
    pub fn keep_ready(&self, limits: UpperLimits, count: usize) -> Result<(), RootsError> {
        self.ready.keep(size(limits)?, count);
        Ok(())
    }

    fn file(&self, id: &str) -> Result<PathBuf, RootsError> {
        check_id(id)?;
        Ok(self.dir.join(format!("{id}{IMAGE}")))
    }

    /// A mount of an upper that is there, by the device that it has or a new one.
    fn mount(&self, id: &str) -> Result<OwnedFd, RootsError> {
        let file = self.file(id)?;
        if let Some(mount) = self.room.get(id) {
            return mount.map_err(at("use the disk", &file));
        }
        let image = image(id, &file)?;
        let named = |failure: Failure| failure.with(file.display().to_string());
        let device = device::device(&image).map_err(named)?;
        mount::mount(&device).map_err(|failure| named(self.full_or(failure)))
    }

    /// As [`Self::mount`], of a file system that takes writes: one that met an error is ended, by which
    /// what it had committed and not yet put in its place comes back.
    fn sound_mount(&self, id: &str) -> Result<OwnedFd, RootsError> {
        let file = self.file(id)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mount = self.mount(id)?;
            if mount::is_sound(&mount) {
                return Ok(mount);
            }
            drop((mount, self.room.take(id)));
            while self.is_attached(id, &file)? {
                if Instant::now() > deadline {
                    let source = io::Error::from(Errno::ROFS);
                    let failure = Failure { step: "write", kernel: String::new(), source };
                    return Err(self.full_or(failure).with(file.display().to_string()));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// The failure, or that there is no room on the host, by which file systems see broken disks.
    fn full_or(&self, failure: Failure) -> Failure {
        match statvfs(&self.dir) {
            Ok(host) if host.f_bavail * host.f_frsize < FULL => {
                Failure { source: Errno::NOSPC.into(), ..failure }
            }
            _ => failure,
        }
    }

    /// Whether anything has the upper mounted.
    fn is_attached(&self, id: &str, file: &Path) -> Result<bool, RootsError> {
        if self.room.get(id).is_some() {
            return Ok(true);
        }
        let image = image(id, file)?;
        match flock(&image, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(at("look at", file)(error.into())),
        }
    }
}

/// The image of an upper, which must be there.
fn image(id: &str, file: &Path) -> Result<OwnedFd, RootsError> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, file, flags, Mode::empty()) {
        Ok(image) => Ok(image),
        Err(Errno::NOENT) => Err(RootsError::NoUpper { id: id.to_owned() }),
        Err(error) => Err(at("open", file)(error.into())),
    }
}

/// The size of an image.
fn size(limits: UpperLimits) -> Result<u64, RootsError> {
    let bytes = limits.bytes;
    if (UpperLimits::LEAST..=UpperLimits::MOST).contains(&bytes) {
        Ok(bytes.next_multiple_of(1 << 20))
    } else {
        Err(RootsError::Size { bytes })
    }
}

impl UpperStore for ImageUppers {
    fn create(&self, id: &str, limits: UpperLimits) -> Result<(), RootsError> {
        let file = self.file(id)?;
        let fresh = self.ready.take(size(limits)?)?;
        kiln_failpoint::reach("upper.drafted").map_err(at("make", &file))?;
        // Until now the file had no name, so a crash leaves nothing of it.
        let unnamed = format!("/proc/self/fd/{}", fresh.image.as_raw_fd());
        match linkat(CWD, unnamed, CWD, &file, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(RootsError::UpperExists { id: id.to_owned() }),
            Err(error) => return Err(at("make", &file)(error.into())),
        }
        self.room.keep(id, fresh.mount);
        kiln_failpoint::pass("upper.created");
        Ok(())
    }

    fn bounded(&self) -> bool {
        true
    }

    fn exists(&self, id: &str) -> Result<bool, RootsError> {
        let file = self.file(id)?;
        match fs::symlink_metadata(&file) {
            Ok(found) => Ok(found.is_file()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(at("look at", &file)(source)),
        }
    }

    fn path(&self, id: &str) -> Result<Changes, RootsError> {
        self.mount(id).map(Changes::below)
    }

    fn open(&self, id: &str) -> Result<OwnedFd, RootsError> {
        let mount = self.sound_mount(id)?;
        room::open_reserve(&mount);
        let file = self.file(id)?;
        if !placeless_mounts_are_whole() {
            // What is given away gets an id mapping, and no copy can be made of it: one more mount.
            let device = device::device(&image(id, &file)?);
            let own = device.and_then(|device| mount::mount(&device));
            self.room.keep(id, mount);
            return own.map_err(|failure| failure.with(file.display().to_string()));
        }
        let kept = mount.try_clone().map_err(at("use the disk", &file))?;
        self.room.keep(id, kept);
        Ok(mount)
    }

    fn adopt(&self, ids: &[String]) -> Result<(), RootsError> {
        let devices = device::all().map_err(|failure| failure.with("of sandboxes that run"))?;
        let adopt = |id: &String| {
            let file = self.file(id)?;
            let found = match fs::symlink_metadata(&file) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(source) => return Err(at("look at", &file)(source)),
            };
            if let Some(device) = devices.get(&(found.dev(), found.ino())) {
                let mount = mount::mount(device);
                let named = |failure: Failure| failure.with(file.display().to_string());
                self.room.keep(id, mount.map_err(named)?);
            }
            Ok(())
        };
        ids.iter().map(adopt).fold(Ok(()), Result::and)
    }

    fn rest(&self, id: &str) -> Result<(), RootsError> {
        check_id(id)?;
        let kept = self.room.take(id);
        // Without the map's lock: this can be the end of the file system, which then writes all it has.
        if let Some(mount) = kept {
            let file = self.file(id)?;
            mount::sync(&mount)
                .and_then(|()| room::give_back(&mount))
                .map_err(|failure| self.full_or(failure).with(file.display().to_string()))?;
        }
        Ok(())
    }

    fn abandon(&self, id: &str) -> Result<(), RootsError> {
        let file = self.file(id)?;
        if self.exists(id)? && self.is_attached(id, &file)? {
            let mount = self.mount(id)?;
            mount::abandon(&mount).map_err(|failure| failure.with(file.display().to_string()))?;
        }
        Ok(())
    }

    fn remove(&self, id: &str) -> Result<bool, RootsError> {
        let file = self.file(id)?;
        let kept = self.room.take(id);
        if let Some(mount) = &kept {
            // Otherwise the end of the file system would first write all that is to be thrown away.
            // That only takes longer, so a kernel that cannot does no harm.
            let _not_at_once = mount::abandon(mount);
        }
        kiln_failpoint::reach("upper.doomed").map_err(at("remove", &file))?;
        let removed = fs::remove_file(&file);
        if let Some(mount) = kept {
            self.ending.end(mount);
        }
        match removed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(at("remove", &file)(source)),
        }
    }

    fn list(&self) -> Result<Vec<String>, RootsError> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(at("read", &self.dir))? {
            let entry = entry.map_err(at("read", &self.dir))?;
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.strip_suffix(IMAGE))
                && check_id(id).is_ok()
                && entry.file_type().map_err(at("look at", &entry.path()))?.is_file()
            {
                ids.push(id.to_owned());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Blocks of the image, and what of a mounted one is still to be written.
    fn usage(&self, id: &str) -> Result<Usage, RootsError> {
        let file = self.file(id)?;
        let image = fs::File::from(image(id, &file)?);
        let allocated = image.metadata().map_err(at("look at", &file))?.blocks() * 512;
        match flock(&image, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // Nobody has it mounted: its own record is right, and need not be asked of the kernel.
                let number = |place: u64| {
                    let mut bytes = [0; 4];
                    let read = image.read_exact_at(&mut bytes, 1024 + place);
                    read.map(|()| u64::from(u32::from_le_bytes(bytes))).map_err(at("read", &file))
                };
                let (all, free) = (number(0)?, number(0x10)?);
                Ok(Usage { bytes: allocated, inodes: all.saturating_sub(free) })
            }
            Err(Errno::WOULDBLOCK) => {
                drop(image);
                let mount = self.mount(id)?;
                let found = fstatvfs(&mount).map_err(|error| at("look at", &file)(error.into()))?;
                let used = (found.f_blocks - found.f_bfree) * found.f_frsize;
                let bytes = allocated.max(used);
                Ok(Usage { bytes, inodes: found.f_files.saturating_sub(found.f_ffree) })
            }
            Err(error) => Err(at("look at", &file)(error.into())),
        }
    }
}
