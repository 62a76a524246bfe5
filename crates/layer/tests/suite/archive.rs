//! Archives for tests, made with the `tar` crate's headers or by hand.

use std::io::{Cursor, Write};

use kiln_layer::{Index, IndexInfo, IndexOptions, LayerError, Limits, ReadLayer};
use tar::{EntryType, Header};

/// A tar under construction.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Appends bytes as they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends a header and its data, padded. Sets size and checksum.
    pub(crate) fn entry(self, mut header: Header, data: &[u8]) -> Self {
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.raw(header.as_bytes()).data(data)
    }

    /// Appends data and its padding.
    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(header(EntryType::Regular, path.as_bytes()), data)
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.dir_with(path, 0o755, 0, 1_000)
    }

    pub(crate) fn dir_with(self, path: &str, mode: u32, uid: u64, mtime: u64) -> Self {
        let mut header = header(EntryType::Directory, path.as_bytes());
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_mtime(mtime);
        self.entry(header, b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        let mut header = header(EntryType::Symlink, path.as_bytes());
        header.set_link_name_literal(target).unwrap();
        self.entry(header, b"")
    }

    pub(crate) fn hardlink(self, path: &str, target: &str) -> Self {
        let mut header = header(EntryType::Link, path.as_bytes());
        header.set_link_name_literal(target).unwrap();
        self.entry(header, b"")
    }

    pub(crate) fn device(self, kind: EntryType, path: &str, major: u32, minor: u32) -> Self {
        let mut header = header(kind, path.as_bytes());
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.entry(header, b"")
    }

    pub(crate) fn fifo(self, path: &str) -> Self {
        self.entry(header(EntryType::Fifo, path.as_bytes()), b"")
    }

    /// Appends a PAX header for the next entry.
    pub(crate) fn pax(self, records: &[(&[u8], &[u8])]) -> Self {
        self.pax_type(b'x', records)
    }

    pub(crate) fn pax_type(self, typeflag: u8, records: &[(&[u8], &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            data.extend(pax_record(key, value));
        }
        self.entry(header(EntryType::new(typeflag), b"PaxHeaders"), &data)
    }

    /// Appends a GNU long name (`L`) or link (`K`) header for the next entry.
    pub(crate) fn gnu_long(self, typeflag: u8, name: &[u8]) -> Self {
        let header = header(EntryType::new(typeflag), b"././@LongLink");
        self.entry(header, &[name, b"\0"].concat())
    }

    /// The archive with its end marker.
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).bytes
    }

    /// The archive as it is.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

/// A GNU header for the first 100 bytes of `path`.
pub(crate) fn header(kind: EntryType, path: &[u8]) -> Header {
    let mut header = Header::new_gnu();
    let len = path.len().min(100);
    header.as_old_mut().name[..len].copy_from_slice(&path[..len]);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000);
    header
}

fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let len = (1..=8).map(|digits| body + digits).find(|len| len.to_string().len() + body == *len);
    let mut record = format!("{} ", len.unwrap()).into_bytes();
    record.extend_from_slice(key);
    record.push(b'=');
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// Reads an archive with the default limits and checks that the copy is the input.
pub(crate) fn read(tar: &[u8]) -> ReadLayer {
    let mut copy = Vec::new();
    let layer = kiln_layer::read_layer(tar, &mut copy, &Limits::default()).unwrap();
    assert_eq!(copy, tar, "the uncompressed tar is copied byte by byte");
    layer
}

/// The error of reading an archive.
pub(crate) fn refuse(tar: &[u8]) -> LayerError {
    kiln_layer::read_layer(tar, std::io::sink(), &Limits::default()).unwrap_err()
}

/// An index with what it was made from.
pub(crate) struct Indexed {
    pub(crate) layer: ReadLayer,
    pub(crate) tar: Vec<u8>,
    pub(crate) info: IndexInfo,
    pub(crate) bytes: Vec<u8>,
}

impl Indexed {
    pub(crate) fn index(&self) -> Index {
        Index::from_bytes(self.bytes.clone(), "test").unwrap()
    }

    /// Writes the pair to `dir` and returns the paths of index and tar.
    pub(crate) fn store(&self, dir: &std::path::Path) -> (std::path::PathBuf, std::path::PathBuf) {
        let name = self.layer.diff_id.hex();
        let (index, tar) = (dir.join(format!("{name}.index")), dir.join(format!("{name}.tar")));
        std::fs::File::create(&index).unwrap().write_all(&self.bytes).unwrap();
        std::fs::File::create(&tar).unwrap().write_all(&self.tar).unwrap();
        (index, tar)
    }
}

pub(crate) fn index_with(tar: Vec<u8>, parents: &[&Indexed], options: &IndexOptions) -> Indexed {
    let layer = read(&tar);
    let parents: Vec<Index> = parents.iter().map(|parent| parent.index()).collect();
    let mut out = Cursor::new(Vec::new());
    let (tree, diff_id, size) = (&layer.tree, layer.diff_id, layer.tar_size);
    let info =
        kiln_layer::write_index_with(tree, diff_id, size, &parents, options, &mut out).unwrap();
    let bytes = out.into_inner();
    assert_eq!(info.size, bytes.len() as u64);
    Indexed { layer, tar, info, bytes }
}

/// Reads and indexes an archive that shows its device nodes.
pub(crate) fn index_on(tar: Vec<u8>, parents: &[&Indexed]) -> Indexed {
    let devices = kiln_layer::DevicePolicy::Keep;
    index_with(tar, parents, &IndexOptions { devices })
}

pub(crate) fn index(tar: Vec<u8>) -> Indexed {
    index_on(tar, &[])
}

/// The error of indexing an archive on `parents`.
pub(crate) fn refuse_index(tar: &[u8], parents: &[&Indexed]) -> LayerError {
    let layer = read(tar);
    let parents: Vec<Index> = parents.iter().map(|parent| parent.index()).collect();
    let mut out = Cursor::new(Vec::new());
    kiln_layer::write_index(&layer.tree, layer.diff_id, layer.tar_size, &parents, &mut out)
        .unwrap_err()
}
