//! A writer of canonical tars: ustar headers, PAX records only where a header cannot say it.

use std::io::{self, Write};

use kiln_types::{DiffId, Digest};
use sha2::{Digest as _, Sha256};

use crate::attributes::{Attributes, Mtime};
use crate::tar::{BLOCK, encode_xattr_name, push_record};

/// The name of the headers that hold PAX records; readers that know them never show it.
const PAX_NAME: &[u8] = b"PaxHeaders";

/// A tar that is hashed while it is written.
#[derive(Debug)]
pub(super) struct Archive<W> {
    out: W,
    hash: Sha256,
    size: u64,
    members: u64,
}

/// The type of a member, with what only this type has.
#[derive(Clone, Copy, Debug)]
pub(super) enum MemberType<'a> {
    File(u64),
    Directory,
    Hardlink(&'a [u8]),
    Symlink(&'a [u8]),
    CharDevice((u32, u32)),
    BlockDevice((u32, u32)),
    Fifo,
}

impl MemberType<'_> {
    fn typeflag(&self) -> u8 {
        match self {
            Self::File(_) => b'0',
            Self::Hardlink(_) => b'1',
            Self::Symlink(_) => b'2',
            Self::CharDevice(_) => b'3',
            Self::BlockDevice(_) => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
        }
    }
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, hash: Sha256::new(), size: 0, members: 0 }
    }

    /// Members so far.
    pub(super) fn members(&self) -> u64 {
        self.members
    }

    /// Writes an empty file that only means something by its name.
    pub(super) fn marker(&mut self, path: &[u8]) -> io::Result<()> {
        let attributes =
            Attributes { mode: 0o644, uid: 0, gid: 0, mtime: Mtime::default(), xattrs: Vec::new() };
        self.member(path, &attributes, MemberType::File(0))
    }

    /// Writes a member's headers. Data of a file have to follow.
    pub(super) fn member(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        kind: MemberType<'_>,
    ) -> io::Result<()> {
        let mut header = Header::new();
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut record = |key: &str, value: &[u8]| records.push((key.into(), value.to_vec()));
        if !header.text(0..100, path) {
            record("path", path);
        }
        header.number(100..108, u64::from(attributes.mode));
        // A hardlink's target has described the inode already.
        let is_link = matches!(kind, MemberType::Hardlink(_));
        for (key, range, id) in
            [("uid", 108..116, attributes.uid), ("gid", 116..124, attributes.gid)]
        {
            if !header.number(range, u64::from(id)) {
                record(key, id.to_string().as_bytes());
            }
        }
        let Mtime { secs, nanos } = attributes.mtime;
        let whole = u64::try_from(secs).is_ok_and(|secs| header.number(136..148, secs));
        if !whole || nanos > 0 && !is_link {
            record("mtime", pax_time(attributes.mtime).as_bytes());
        }
        match kind {
            MemberType::File(size) if !header.number(124..136, size) => {
                record("size", size.to_string().as_bytes());
            }
            MemberType::Hardlink(target) | MemberType::Symlink(target)
                if !header.text(157..257, target) =>
            {
                record("linkpath", target);
            }
            MemberType::CharDevice((major, minor)) | MemberType::BlockDevice((major, minor)) => {
                header.number(329..337, u64::from(major));
                header.number(337..345, u64::from(minor));
            }
            _ => {}
        }
        if !is_link {
            for xattr in &attributes.xattrs {
                let key = [b"SCHILY.xattr.", &encode_xattr_name(&xattr.name)[..]].concat();
                records.push((key, xattr.value.clone()));
            }
        }
        if !records.is_empty() {
            records.sort();
            let mut data = Vec::new();
            for (key, value) in &records {
                push_record(&mut data, key, value);
            }
            self.extension(&data)?;
        }
        self.members += 1;
        self.write(&header.finish(kind.typeflag()))
    }

    /// Writes data of the file whose headers were written last.
    pub(super) fn data(&mut self, data: &[u8]) -> io::Result<()> {
        self.write(data)
    }

    /// Ends the data of a file.
    pub(super) fn end_data(&mut self) -> io::Result<()> {
        let padding = self.size.next_multiple_of(BLOCK) - self.size;
        self.write(&[0; BLOCK as usize][..padding as usize])
    }

    /// Writes the end-of-archive marker. Returns the digest and the size of the tar.
    pub(super) fn finish(mut self) -> io::Result<(DiffId, u64)> {
        self.write(&[0; 2 * BLOCK as usize])?;
        self.out.flush()?;
        Ok((DiffId(Digest::from_sha256(self.hash.finalize().into())), self.size))
    }

    fn extension(&mut self, data: &[u8]) -> io::Result<()> {
        let mut header = Header::new();
        header.text(0..100, PAX_NAME);
        header.number(100..108, 0o644);
        header.number(108..116, 0);
        header.number(116..124, 0);
        header.number(124..136, data.len() as u64);
        header.number(136..148, 0);
        self.write(&header.finish(b'x'))?;
        self.write(data)?;
        self.end_data()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// A POSIX ustar header.
struct Header([u8; BLOCK as usize]);

impl Header {
    fn new() -> Self {
        let mut header = Self([0; BLOCK as usize]);
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        for range in [108..116, 116..124, 124..136, 136..148, 329..337, 337..345] {
            header.number(range, 0);
        }
        header
    }

    /// Whether the text fits the field; what fits is put there anyway.
    fn text(&mut self, range: std::ops::Range<usize>, text: &[u8]) -> bool {
        let field = &mut self.0[range];
        let len = text.len().min(field.len());
        field[..len].copy_from_slice(&text[..len]);
        len == text.len()
    }

    /// Whether the number fits the field in octal with a NUL behind it; if not, the field keeps its zeros.
    fn number(&mut self, range: std::ops::Range<usize>, number: u64) -> bool {
        let field = &mut self.0[range];
        let width = field.len() - 1;
        let digits = format!("{number:0width$o}");
        let fits = digits.len() == width;
        if fits {
            field[..width].copy_from_slice(digits.as_bytes());
        }
        fits
    }

    fn finish(mut self, typeflag: u8) -> [u8; BLOCK as usize] {
        self.0[156] = typeflag;
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// Decimal seconds without trailing zeros.
fn pax_time(Mtime { secs, nanos }: Mtime) -> String {
    let (sign, whole, fraction) = if secs < 0 && nanos > 0 {
        ("-", (secs + 1).unsigned_abs(), 1_000_000_000 - nanos)
    } else if secs < 0 {
        ("-", secs.unsigned_abs(), 0)
    } else {
        ("", secs.unsigned_abs(), nanos)
    };
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (secs, nanos, text) in [
            (0, 0, "0"),
            (100, 0, "100"),
            (1_700_000_000, 120_000_000, "1700000000.12"),
            (5, 1, "5.000000001"),
            (-1, 0, "-1"),
            (-10, 0, "-10"),
            (-2, 750_000_000, "-1.25"),
            (-1, 999_999_999, "-0.000000001"),
        ] {
            assert_eq!(pax_time(Mtime { secs, nanos }), text);
        }
    }
}
