//! The 512-byte header block.

use super::number;
use crate::error::EntryProblem;

/// Which of the dialects that share the block's first half it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header block, read field by field.
#[derive(Debug)]
pub(crate) struct Header<'b> {
    block: &'b [u8; 512],
    dialect: Dialect,
}

impl<'b> Header<'b> {
    pub(crate) fn new(block: &'b [u8; 512]) -> Self {
        let dialect = match &block[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => {
                if &block[508..] == b"tar\0" {
                    Dialect::Star
                } else {
                    Dialect::Ustar
                }
            }
            _ => Dialect::V7,
        };
        Self { block, dialect }
    }

    /// The sum of all bytes with the checksum field as spaces; some old writers summed signed bytes.
    pub(crate) fn verify_checksum(&self) -> Result<(), EntryProblem> {
        let stored = number::field(&self.block[148..156]).ok_or(EntryProblem::Checksum)?;
        let counted = || {
            let blanks = std::iter::repeat_n(&b' ', 8);
            self.block[..148].iter().chain(blanks).chain(&self.block[156..])
        };
        let unsigned: i128 = counted().map(|byte| i128::from(*byte)).sum();
        let signed: i128 = counted().map(|byte| i128::from(*byte as i8)).sum();
        if stored == unsigned || stored == signed { Ok(()) } else { Err(EntryProblem::Checksum) }
    }

    pub(crate) fn typeflag(&self) -> u8 {
        self.block[156]
    }

    /// Whether the typeflag is one that the dialect defines.
    pub(crate) fn knows_typeflag(&self) -> bool {
        self.dialect != Dialect::V7 || matches!(self.typeflag(), 0 | b'0'..=b'2' | b'5')
    }

    /// The name field, with the prefix field in front where the dialect has one.
    pub(crate) fn path(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = match self.dialect {
            Dialect::Ustar => text(&self.block[345..500]),
            Dialect::Star => text(&self.block[345..476]),
            Dialect::Gnu | Dialect::V7 => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(crate) fn link(&self) -> &'b [u8] {
        text(&self.block[157..257])
    }

    /// The permission bits. Some writers add the file type above them.
    pub(crate) fn mode(&self) -> Result<u32, EntryProblem> {
        self.unsigned("mode", 100..108).map(|mode: u32| mode & 0o7777)
    }

    pub(crate) fn uid(&self) -> Result<u32, EntryProblem> {
        self.unsigned("uid", 108..116)
    }

    pub(crate) fn gid(&self) -> Result<u32, EntryProblem> {
        self.unsigned("gid", 116..124)
    }

    pub(crate) fn size(&self) -> Result<u64, EntryProblem> {
        self.unsigned("size", 124..136)
    }

    /// Seconds; the only field that may be negative.
    pub(crate) fn mtime(&self) -> Result<i64, EntryProblem> {
        self.number("mtime", 136..148)
    }

    /// Whether every field that is to be a number is one, also those that nothing is taken from: there are
    /// tools for which the archive ends at a header that has one that is not.
    pub(crate) fn verify_numbers(&self) -> Result<(), EntryProblem> {
        for (name, range) in [
            ("mode", 100..108),
            ("uid", 108..116),
            ("gid", 116..124),
            ("devmajor", 329..337),
            ("devminor", 337..345),
        ] {
            self.unsigned::<u32>(name, range)?;
        }
        self.size()?;
        self.mtime().map(drop)
    }

    pub(crate) fn device(&self) -> Result<(u32, u32), EntryProblem> {
        Ok((self.unsigned("devmajor", 329..337)?, self.unsigned("devminor", 337..345)?))
    }

    fn unsigned<N: TryFrom<i128>>(
        &self,
        name: &str,
        range: std::ops::Range<usize>,
    ) -> Result<N, EntryProblem> {
        self.number(name, range)
    }

    fn number<N: TryFrom<i128>>(
        &self,
        name: &str,
        range: std::ops::Range<usize>,
    ) -> Result<N, EntryProblem> {
        number::field(&self.block[range])
            .and_then(|value| N::try_from(value).ok())
            .ok_or_else(|| EntryProblem::Number { field: name.to_owned() })
    }
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}
