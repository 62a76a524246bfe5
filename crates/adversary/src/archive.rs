//! A tar builder that says nothing of its own: every field can be set to any bytes.

/// The magic and version fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// POSIX.
    Ustar,
    /// GNU tar's own.
    Gnu,
    /// None, as in the seventh edition of Unix.
    V7,
}

/// A header block.
#[derive(Clone, Debug)]
pub struct Header {
    block: [u8; 512],
}

impl Header {
    /// A POSIX header with mode 0644, owner and time 0, and size 0. Of a name over 100 bytes, only that
    /// many are kept.
    pub fn new(typeflag: u8, name: impl AsRef<[u8]>) -> Self {
        let mut header = Self { block: [0; 512] };
        header.put(0, 100, name.as_ref());
        header.put(100, 8, b"0000644\0");
        header.put(108, 8, b"0000000\0");
        header.put(116, 8, b"0000000\0");
        header.put(124, 12, b"00000000000\0");
        header.put(136, 12, b"00000000000\0");
        header.block[156] = typeflag;
        header.magic(Magic::Ustar)
    }

    fn put(&mut self, at: usize, len: usize, value: &[u8]) {
        let len = len.min(value.len());
        self.block[at..at + len].copy_from_slice(&value[..len]);
    }

    /// Sets any bytes anywhere.
    #[must_use]
    pub fn bytes(mut self, at: usize, value: &[u8]) -> Self {
        self.put(at, 512 - at, value);
        self
    }

    /// Sets the dialect.
    #[must_use]
    pub fn magic(self, magic: Magic) -> Self {
        self.bytes(
            257,
            match magic {
                Magic::Ustar => b"ustar\x0000",
                Magic::Gnu => b"ustar  \0",
                Magic::V7 => &[0; 8],
            },
        )
    }

    /// Sets the permission bits.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        self.bytes(100, format!("{mode:07o}\0").as_bytes())
    }

    /// Sets owner and group, below 2^21.
    #[must_use]
    pub fn owner(self, uid: u32, gid: u32) -> Self {
        self.bytes(108, format!("{uid:07o}\0{gid:07o}\0").as_bytes())
    }

    /// Sets the time.
    #[must_use]
    pub fn mtime(self, mtime: u32) -> Self {
        self.bytes(136, format!("{mtime:011o}\0").as_bytes())
    }

    /// Sets the size, below 2^33.
    #[must_use]
    pub fn size(self, size: u64) -> Self {
        self.bytes(124, format!("{size:011o}\0").as_bytes())
    }

    /// Sets the link field.
    #[must_use]
    pub fn link(mut self, target: impl AsRef<[u8]>) -> Self {
        self.put(157, 100, target.as_ref());
        self
    }

    /// Sets the device number.
    #[must_use]
    pub fn device(self, major: u32, minor: u32) -> Self {
        self.bytes(329, format!("{major:07o}\0{minor:07o}\0").as_bytes())
    }

    /// The block with a checksum that is right.
    pub fn sealed(mut self) -> [u8; 512] {
        seal(&mut self.block);
        self.block
    }

    /// The block with the checksum that was set.
    pub fn unsealed(self) -> [u8; 512] {
        self.block
    }
}

/// Gives a header block the checksum of its bytes.
pub(crate) fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Records of a PAX header.
pub fn pax_records<K: AsRef<[u8]>, V: AsRef<[u8]>>(records: &[(K, V)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let (key, value) = (key.as_ref(), value.as_ref());
        let body = key.len() + value.len() + 3;
        let len = (1..=8)
            .map(|digits| body + digits)
            .find(|len| len.to_string().len() + body == *len)
            .expect("a record of a test has less than 10^8 bytes");
        data.extend_from_slice(format!("{len} ").as_bytes());
        data.extend_from_slice(key);
        data.push(b'=');
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    data
}

/// A tar under construction.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends data and its padding.
    #[must_use]
    pub fn data(mut self, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Appends a header with the size of `data`, and the data.
    #[must_use]
    pub fn entry(self, header: Header, data: &[u8]) -> Self {
        self.raw(&header.size(data.len() as u64).sealed()).data(data)
    }

    /// Appends an entry whose name may be longer than a header can hold.
    fn named(self, header: Header, name: &[u8], data: &[u8]) -> Self {
        let archive = if name.len() > 100 { self.pax(&[("path", name)]) } else { self };
        archive.entry(header, data)
    }

    /// Appends a file with mode 0644.
    #[must_use]
    pub fn file(self, name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        self.named(Header::new(b'0', name), name, data.as_ref())
    }

    /// Appends a directory with mode 0755.
    #[must_use]
    pub fn dir(self, name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        self.named(Header::new(b'5', name).mode(0o755), name, b"")
    }

    /// Appends a symlink.
    #[must_use]
    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.link(b'2', name.as_ref(), target.as_ref())
    }

    /// Appends a hardlink.
    #[must_use]
    pub fn hardlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.link(b'1', name.as_ref(), target.as_ref())
    }

    fn link(self, typeflag: u8, name: &[u8], target: &[u8]) -> Self {
        let header = Header::new(typeflag, name).mode(0o777).link(target);
        let archive = if target.len() > 100 { self.gnu_long(b'K', target) } else { self };
        archive.named(header, name, b"")
    }

    /// Appends a device node: `3` is a character device, `4` a block device.
    #[must_use]
    pub fn device(self, typeflag: u8, name: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        self.entry(Header::new(typeflag, name).device(major, minor), b"")
    }

    /// Appends a named pipe.
    #[must_use]
    pub fn fifo(self, name: impl AsRef<[u8]>) -> Self {
        self.entry(Header::new(b'6', name), b"")
    }

    /// Appends a PAX header for the next entry.
    #[must_use]
    pub fn pax<K: AsRef<[u8]>, V: AsRef<[u8]>>(self, records: &[(K, V)]) -> Self {
        self.entry(Header::new(b'x', "PaxHeaders/x"), &pax_records(records))
    }

    /// Appends a global PAX header.
    #[must_use]
    pub fn global<K: AsRef<[u8]>, V: AsRef<[u8]>>(self, records: &[(K, V)]) -> Self {
        self.entry(Header::new(b'g', "PaxHeaders/g"), &pax_records(records))
    }

    /// Appends a GNU long name (`L`) or long link (`K`) for the next entry.
    #[must_use]
    pub fn gnu_long(self, typeflag: u8, name: impl AsRef<[u8]>) -> Self {
        let header = Header::new(typeflag, "././@LongLink").magic(Magic::Gnu);
        self.entry(header, &[name.as_ref(), b"\0"].concat())
    }

    /// The archive with its end marker.
    #[must_use]
    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).bytes
    }

    /// The archive as it is.
    #[must_use]
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}
