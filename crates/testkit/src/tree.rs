//! File trees as descriptions, and their tars.

use tar::{Builder, EntryType, Header};

/// What a layer is to contain, in archive order. Every entry has fixed times, so equal descriptions
/// give equal bytes.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    path: String,
    mode: u32,
    owner: (u64, u64),
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    Hardlink(String),
    Fifo,
    Device(u32, u32),
}

impl Tree {
    /// A tree without entries.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, path: impl Into<String>, mode: u32, kind: Kind) -> Self {
        self.entries.push(Entry { path: path.into(), mode, owner: (0, 0), kind });
        self
    }

    /// A directory with mode 0755.
    #[must_use]
    pub fn dir(self, path: impl Into<String>) -> Self {
        self.with(path, 0o755, Kind::Directory)
    }

    /// A file with mode 0644.
    #[must_use]
    pub fn file(self, path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.with(path, 0o644, Kind::File(content.into()))
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: impl Into<String>, target: impl Into<String>) -> Self {
        self.with(path, 0o777, Kind::Symlink(target.into()))
    }

    /// A hard link to an entry of this layer or a lower one.
    #[must_use]
    pub fn hardlink(self, path: impl Into<String>, target: impl Into<String>) -> Self {
        self.with(path, 0o644, Kind::Hardlink(target.into()))
    }

    /// A named pipe.
    #[must_use]
    pub fn fifo(self, path: impl Into<String>) -> Self {
        self.with(path, 0o644, Kind::Fifo)
    }

    /// A character device.
    #[must_use]
    pub fn device(self, path: impl Into<String>, major: u32, minor: u32) -> Self {
        self.with(path, 0o600, Kind::Device(major, minor))
    }

    /// The mark that hides `path` of the layers below.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let separator = if dir.is_empty() { "" } else { "/" };
        self.file(format!("{dir}{separator}.wh.{name}"), [])
    }

    /// The mark that hides all that the layers below have in the directory `path`.
    #[must_use]
    pub fn opaque(self, path: &str) -> Self {
        self.file(format!("{path}/.wh..wh..opq"), [])
    }

    /// Gives the last entry another mode.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.last().mode = mode;
        self
    }

    /// Gives the last entry another owner.
    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.last().owner = (uid, gid);
        self
    }

    fn last(&mut self) -> &mut Entry {
        self.entries.last_mut().expect("there is an entry to change")
    }

    /// A small root file system, enough for tests that only look at files.
    pub fn root() -> Self {
        Self::new()
            .dir(".")
            .dir("bin")
            .dir("etc")
            .file("etc/hostname", "test\n")
            .dir("tmp")
            .mode(0o1777)
            .dir("usr")
            .dir("usr/bin")
    }

    /// `count` files of `size` bytes that no compressor makes much smaller, and that differ with `seed`.
    pub fn noise(seed: u64, count: usize, size: usize) -> Self {
        let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
        let mut next = move || {
            // xorshift64*: repeatable, and spread well enough.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        let mut tree = Self::new().dir(".").dir("noise");
        for number in 0..count {
            let content: Vec<u8> =
                (0..size.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(size).collect();
            tree = tree.file(format!("noise/{number}"), content);
        }
        tree
    }

    /// The uncompressed tar.
    pub fn tar(&self) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for Entry { path, mode, owner, kind } in &self.entries {
            let mut header = Header::new_gnu();
            header.set_mode(*mode);
            header.set_uid(owner.0);
            header.set_gid(owner.1);
            header.set_mtime(1_700_000_000);
            header.set_size(0);
            let data: &[u8] = match kind {
                Kind::File(content) => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(content.len() as u64);
                    content
                }
                kind => {
                    header.set_entry_type(entry_type(kind));
                    &[]
                }
            };
            match kind {
                Kind::Symlink(target) | Kind::Hardlink(target) => {
                    builder.append_link(&mut header, path, target).map(drop)
                }
                Kind::Device(major, minor) => {
                    header.set_device_major(*major).expect("the header has the field");
                    header.set_device_minor(*minor).expect("the header has the field");
                    builder.append_data(&mut header, path, data)
                }
                _ => builder.append_data(&mut header, path, data),
            }
            .expect("a test's entry fits into a tar");
        }
        builder.into_inner().expect("a Vec takes all bytes")
    }
}

fn entry_type(kind: &Kind) -> EntryType {
    match kind {
        Kind::Directory => EntryType::Directory,
        Kind::File(_) => EntryType::Regular,
        Kind::Symlink(_) => EntryType::Symlink,
        Kind::Hardlink(_) => EntryType::Link,
        Kind::Fifo => EntryType::Fifo,
        Kind::Device(..) => EntryType::Char,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_become_tars() {
        let tree = Tree::root()
            .file("a/b", "x")
            .mode(0o755)
            .owner(7, 8)
            .symlink("l", "a/b")
            .hardlink("h", "a/b")
            .whiteout("a/gone")
            .whiteout("gone")
            .opaque("a")
            .device("dev", 1, 3);
        let tar = tree.tar();
        assert_eq!(tar, tree.tar());
        let mut archive = tar::Archive::new(tar.as_slice());
        let paths: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(
            paths[7..],
            ["a/b", "l", "h", "a/.wh.gone", ".wh.gone", "a/.wh..wh..opq", "dev"]
        );
        assert_ne!(Tree::noise(1, 1, 64).tar(), Tree::noise(2, 1, 64).tar());
    }
}
