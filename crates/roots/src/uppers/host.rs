//! The uppers of a host: each of the kind that it was made as, new ones of one kind.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::{Changes, DirectoryUppers, ImageUppers, UpperLimits, UpperStore, Usage};
use crate::RootsError;

/// The kinds of uppers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpperKind {
    /// Files of the host's file system, which alone bounds them.
    Directory,
    /// A sparse ext4 image, bounded by its size.
    Image,
}

/// Both kinds in one directory. New uppers are of one kind; those of the other, from a time when the
/// host or its configuration was different, stay usable.
#[derive(Debug)]
pub struct HostUppers {
    directories: DirectoryUppers,
    images: ImageUppers,
    new: UpperKind,
}

impl HostUppers {
    /// The uppers in `dir`, which is made if need be. As [`DirectoryUppers::open`], only one process
    /// may have it open.
    pub fn open(dir: &Path, new: UpperKind) -> Result<Self, RootsError> {
        let (directories, images) = (DirectoryUppers::open(dir)?, ImageUppers::open(dir)?);
        Ok(Self { directories, images, new })
    }

    /// The images, to have some of them made in advance.
    pub fn images(&self) -> &ImageUppers {
        &self.images
    }

    fn of(&self, kind: UpperKind) -> &dyn UpperStore {
        match kind {
            UpperKind::Directory => &self.directories,
            UpperKind::Image => &self.images,
        }
    }

    /// The store that has this upper; that of new ones if none has.
    fn owner(&self, id: &str) -> Result<&dyn UpperStore, RootsError> {
        let other = match self.new {
            UpperKind::Directory => UpperKind::Image,
            UpperKind::Image => UpperKind::Directory,
        };
        let (new, other) = (self.of(self.new), self.of(other));
        Ok(if !new.exists(id)? && other.exists(id)? { other } else { new })
    }
}

impl UpperStore for HostUppers {
    fn create(&self, id: &str, limits: UpperLimits) -> Result<(), RootsError> {
        if self.exists(id)? {
            return Err(RootsError::UpperExists { id: id.to_owned() });
        }
        self.of(self.new).create(id, limits)
    }

    fn bounded(&self) -> bool {
        self.of(self.new).bounded()
    }

    fn exists(&self, id: &str) -> Result<bool, RootsError> {
        self.owner(id)?.exists(id)
    }

    fn path(&self, id: &str) -> Result<Changes, RootsError> {
        self.owner(id)?.path(id)
    }

    fn open(&self, id: &str) -> Result<OwnedFd, RootsError> {
        self.owner(id)?.open(id)
    }

    fn adopt(&self, ids: &[String]) -> Result<(), RootsError> {
        // Directories need nothing of the kind.
        self.images.adopt(ids)
    }

    fn rest(&self, id: &str) -> Result<(), RootsError> {
        self.owner(id)?.rest(id)
    }

    fn abandon(&self, id: &str) -> Result<(), RootsError> {
        self.owner(id)?.abandon(id)
    }

    fn remove(&self, id: &str) -> Result<bool, RootsError> {
        self.owner(id)?.remove(id)
    }

    fn list(&self) -> Result<Vec<String>, RootsError> {
        let mut ids = self.directories.list()?;
        ids.extend(self.images.list()?);
        ids.sort_unstable();
        Ok(ids)
    }

    fn usage(&self, id: &str) -> Result<Usage, RootsError> {
        self.owner(id)?.usage(id)
    }
}
