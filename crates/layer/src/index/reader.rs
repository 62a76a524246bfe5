//! Reads indexes that [`crate::write_index`] made, trusting none of their bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_types::DiffId;

use crate::attributes::{Attributes, Mtime, Xattr};
use crate::erofs::inode::{
    CHUNK_INDEX, Layout, RawInode, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG,
    SIZE, decode_device,
};
use crate::erofs::superblock::Superblock;
use crate::erofs::{BLOCK, Damage, INODE_SLOT, directory, u16_at, u32_at, xattr};
use crate::error::LayerError;
use crate::name::components;

/// An index, held in memory.
#[derive(Debug)]
pub struct Index {
    bytes: Vec<u8>,
    root: u64,
    inodes: u64,
    devices: Vec<DiffId>,
    /// Their sizes in blocks.
    pub(super) device_blocks: Vec<u32>,
    path: PathBuf,
}

/// What an index says about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Kind, with what only this kind has.
    pub kind: EntryKind,
    /// The lower twelve bits of `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Links.
    pub nlink: u32,
    /// `st_ino`: equal for the names of one inode.
    pub ino: u64,
    /// `st_size`.
    pub size: u64,
    /// Sorted by name; the marks that overlayfs reads (`trusted.overlay.*`) are among them.
    pub xattrs: Vec<Xattr>,
}

/// The kinds of inodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file; the extents cover `size` bytes, in order.
    File(Vec<Extent>),
    /// A directory.
    Directory,
    /// A symlink and its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// Character device 0:0: hides the name in the layers below.
    Whiteout,
}

/// A run of bytes in a tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The tar.
    pub tar: DiffId,
    /// Where in it the run starts.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Index {
    /// Reads an index file and checks its superblock.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LayerError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path)
            .map_err(|source| LayerError::ReadIndex { path: path.to_owned(), source })?;
        Self::from_bytes(bytes, path)
    }

    /// An index whose bytes are in memory already; errors call it `path`.
    pub fn from_bytes(bytes: Vec<u8>, path: impl Into<PathBuf>) -> Result<Self, LayerError> {
        let path = path.into();
        match Superblock::decode(&bytes) {
            Ok(Superblock { root_nid, inodes, devices, .. }) => {
                let (devices, device_blocks) = devices.into_iter().unzip();
                Ok(Self { bytes, root: root_nid.into(), inodes, devices, device_blocks, path })
            }
            Err(Damage(problem)) => Err(LayerError::DamagedIndex { path, problem }),
        }
    }

    /// The tars that the index refers to, in the order in which a mount has to name them.
    pub fn devices(&self) -> &[DiffId] {
        &self.devices
    }

    /// How many inodes the index has.
    pub fn inodes(&self) -> u64 {
        self.inodes
    }

    /// The entry at `path` (from the root, `/` or not in front). No component is followed if it is a symlink.
    pub fn lookup(&self, path: impl AsRef<Path>) -> Result<Option<IndexEntry>, LayerError> {
        let find = || {
            let mut nid = self.root;
            for name in components(path.as_ref().as_os_str().as_bytes()) {
                match self.child(nid, name)? {
                    Some(child) => nid = child,
                    None => return Ok(None),
                }
            }
            self.entry(nid).map(Some)
        };
        find().map_err(|damage| self.damaged(damage))
    }

    /// Every entry, the root first, each directory before what it holds, names in byte order.
    pub fn walk(&self) -> Walk<'_> {
        Walk { index: self, stack: vec![(PathBuf::new(), self.root)], left: None }
    }

    /// How many blocks the tar has according to the device table.
    pub(crate) fn blocks_of(&self, tar: &DiffId) -> Option<u32> {
        let device = self.devices.iter().position(|device| device == tar)?;
        self.device_blocks.get(device).copied()
    }

    pub(crate) fn damaged(&self, damage: Damage) -> LayerError {
        LayerError::DamagedIndex { path: self.path.clone(), problem: damage.0 }
    }

    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    /// The inode number of `name` in directory `nid`; `None` too if `nid` is no directory.
    pub(crate) fn child(&self, nid: u64, name: &[u8]) -> Result<Option<u64>, Damage> {
        let (offset, raw) = self.raw(nid)?;
        if raw.mode & S_IFMT != S_IFDIR || matches!(name, b"." | b"..") {
            return Ok(None);
        }
        let count = raw.size.div_ceil(BLOCK);
        // The first block whose first name is beyond `name`.
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            let block = directory::decode(self.data_block(offset, &raw, middle)?)?;
            if block.first().is_some_and(|(first, _)| *first <= name) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(block) = low.checked_sub(1) else { return Ok(None) };
        let entries = directory::decode(self.data_block(offset, &raw, block)?)?;
        Ok(entries.iter().find(|(found, _)| *found == name).map(|(_, nid)| *nid))
    }

    /// Names and inode numbers of a directory, without `.` and `..`, in order.
    pub(super) fn children(&self, nid: u64) -> Result<Vec<(&[u8], u64)>, Damage> {
        let (offset, raw) = self.raw(nid)?;
        let mut children: Vec<(&[u8], u64)> = Vec::new();
        for block in 0..raw.size.div_ceil(BLOCK) {
            children.extend(directory::decode(self.data_block(offset, &raw, block)?)?);
        }
        if !children.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(Damage::new("the names of a directory are not in order"));
        }
        children.retain(|(name, _)| !matches!(*name, b"." | b".."));
        Ok(children)
    }

    pub(crate) fn entry(&self, nid: u64) -> Result<IndexEntry, Damage> {
        let (offset, raw) = self.raw(nid)?;
        let area = xattr::size_of_count(raw.xattr_count);
        let xattrs = offset + SIZE as usize;
        let area = self.bytes.get(xattrs..xattrs + area);
        let xattrs =
            xattr::decode(area.ok_or_else(|| Damage::new("an inode's xattrs are cut off"))?)?;
        let kind = match (raw.mode & S_IFMT, raw.layout) {
            (S_IFREG, _) => EntryKind::File(self.extents(offset, &raw)?),
            (S_IFDIR, _) => EntryKind::Directory,
            (S_IFLNK, _) => EntryKind::Symlink(self.data(offset, &raw)?),
            (S_IFIFO, _) => EntryKind::Fifo,
            (S_IFCHR, Layout::Device(0)) => EntryKind::Whiteout,
            (S_IFCHR, Layout::Device(number)) => {
                let (major, minor) = decode_device(number);
                EntryKind::CharDevice { major, minor }
            }
            (S_IFBLK, Layout::Device(number)) => {
                let (major, minor) = decode_device(number);
                EntryKind::BlockDevice { major, minor }
            }
            (mode, _) => {
                return Err(Damage::new(format!("an inode has the unknown type {mode:o}")));
            }
        };
        Ok(IndexEntry {
            kind,
            mode: raw.mode & !S_IFMT,
            uid: raw.uid,
            gid: raw.gid,
            mtime: raw.mtime,
            nlink: raw.nlink,
            ino: nid,
            size: raw.size,
            xattrs,
        })
    }

    fn raw(&self, nid: u64) -> Result<(usize, RawInode), Damage> {
        let offset = nid
            .checked_mul(INODE_SLOT)
            .and_then(|offset| usize::try_from(offset).ok())
            .ok_or_else(|| Damage::new("an inode number is out of range"))?;
        Ok((offset, RawInode::decode(&self.bytes, offset)?))
    }

    /// One block of a directory's or symlink's data, the last one not padded.
    fn data_block(&self, inode: usize, raw: &RawInode, block: u64) -> Result<&[u8], Damage> {
        let cut = || Damage::new("the data of an inode are cut off");
        let len = (raw.size - block * BLOCK).min(BLOCK) as usize;
        let last = (block + 1) * BLOCK >= raw.size;
        let start = match raw.layout {
            Layout::Inline { .. } if last => {
                inode + SIZE as usize + xattr::size_of_count(raw.xattr_count)
            }
            Layout::Inline { start_block } | Layout::Plain { start_block } => {
                let block = u64::from(start_block).checked_add(block).ok_or_else(cut)?;
                usize::try_from(block.checked_mul(BLOCK).ok_or_else(cut)?).map_err(|_| cut())?
            }
            Layout::Chunks { .. } | Layout::Device(_) => {
                return Err(Damage::new("a directory or symlink has file data"));
            }
        };
        start.checked_add(len).and_then(|end| self.bytes.get(start..end)).ok_or_else(cut)
    }

    fn data(&self, inode: usize, raw: &RawInode) -> Result<Vec<u8>, Damage> {
        let mut data = Vec::new();
        for block in 0..raw.size.div_ceil(BLOCK) {
            data.extend_from_slice(self.data_block(inode, raw, block)?);
        }
        Ok(data)
    }

    fn extents(&self, inode: usize, raw: &RawInode) -> Result<Vec<Extent>, Damage> {
        if raw.size == 0 {
            return Ok(Vec::new());
        }
        let Layout::Chunks { bits } = raw.layout else {
            return Err(Damage::new("a file's data are not in a tar"));
        };
        let area = xattr::size_of_count(raw.xattr_count);
        let first = (inode + SIZE as usize + area).next_multiple_of(CHUNK_INDEX as usize);
        let mut extents: Vec<Extent> = Vec::new();
        for chunk in 0..raw.size.div_ceil(1 << bits) {
            let at = first + (chunk * CHUNK_INDEX) as usize;
            let device = usize::from(u16_at(&self.bytes, at + 2)?);
            let tar = device.checked_sub(1).and_then(|device| self.devices.get(device));
            let tar =
                *tar.ok_or_else(|| Damage::new("a chunk names a device that is not there"))?;
            let offset = u64::from(u32_at(&self.bytes, at + 4)?) * BLOCK;
            let len = (raw.size - (chunk << bits)).min(1 << bits);
            match extents.last_mut() {
                Some(last) if last.tar == tar && last.offset + last.len == offset => {
                    last.len += len;
                }
                _ => extents.push(Extent { tar, offset, len }),
            }
        }
        Ok(extents)
    }
}

/// The iterator of [`Index::walk`]: paths relative to the root (which is empty) and their entries.
#[derive(Debug)]
pub struct Walk<'i> {
    index: &'i Index,
    stack: Vec<(PathBuf, u64)>,
    /// Names that may still come; a loop of directories has no end.
    left: Option<u64>,
}

impl Walk<'_> {
    fn visit(&mut self, path: &Path, nid: u64) -> Result<IndexEntry, Damage> {
        let index = self.index;
        // Every name takes twelve bytes and one more of the index.
        let left = self.left.get_or_insert(index.bytes.len() as u64 / 13 + 1);
        let entry = index.entry(nid)?;
        if entry.kind == EntryKind::Directory {
            let children = index.children(nid)?;
            // Counted as they are found: directories that hold each other would fill the memory before the
            // walk comes to its bound.
            *left = left
                .checked_sub(children.len() as u64)
                .ok_or_else(|| Damage::new("its directories form a loop"))?;
            let children = children.into_iter().rev();
            self.stack
                .extend(children.map(|(name, nid)| (path.join(OsStr::from_bytes(name)), nid)));
        }
        Ok(entry)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<(PathBuf, IndexEntry), LayerError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (path, nid) = self.stack.pop()?;
        match self.visit(&path, nid) {
            Ok(entry) => Some(Ok((path, entry))),
            Err(damage) => {
                self.stack.clear();
                Some(Err(self.index.damaged(damage)))
            }
        }
    }
}

impl IndexEntry {
    /// The attributes without the marks that only mean something to overlayfs.
    pub(crate) fn into_attributes(self) -> Attributes {
        let Self { mode, uid, gid, mtime, mut xattrs, .. } = self;
        xattrs.retain(|xattr| !xattr.name.starts_with(b"trusted.overlay."));
        Attributes { mode, uid, gid, mtime, xattrs }
    }
}
