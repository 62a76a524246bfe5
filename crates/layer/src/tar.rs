//! A sans-IO reader of tar headers: POSIX ustar and pax (IEEE Std 1003.1, "pax"), GNU, star and V7.
//!
//! It is strict where tools disagree: what one tool would read as another tree than the next is refused.

mod header;
mod member;
mod number;
mod pax;

pub(crate) use member::{Member, MemberKind};
pub(crate) use pax::{encode_xattr_name, push_record};

use header::Header;
use member::Extensions;

use crate::error::{EntryProblem, LayerError};
use crate::limits::Limits;

/// The size of headers, and the unit to which data is padded.
pub(crate) const BLOCK: u64 = 512;

/// Bytes that `size` bytes of data take in the archive; `None` beyond what a position can be.
pub(crate) fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK).filter(|padded| i64::try_from(*padded).is_ok())
}

/// What to do after a header.
#[derive(Debug)]
pub(crate) enum Step {
    /// Read this many bytes of data, then their padding, and hand the data to [`Members::extension`].
    Extension(u64),
    /// A member. Its data and their padding follow.
    Member(Box<Member>),
    /// Read the next header.
    Next,
    /// The end-of-archive marker is complete.
    End,
}

/// The state between two headers.
#[derive(Debug)]
pub(crate) struct Members {
    longest_extension: u64,
    extensions: Extensions,
    /// The extension header whose data comes next: its typeflag.
    expected: Option<u8>,
    /// What is wrong with an extension header; said as soon as the entry's name is known.
    failed: Option<EntryProblem>,
    seen_zero_block: bool,
}

impl Members {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            longest_extension: limits.pax_bytes,
            extensions: Extensions::default(),
            expected: None,
            failed: None,
            seen_zero_block: false,
        }
    }

    /// Takes the header block at `offset`.
    pub(crate) fn header(&mut self, block: &[u8; 512], offset: u64) -> Result<Step, LayerError> {
        if block.iter().all(|byte| *byte == 0) {
            self.end(offset)?;
            return Ok(if std::mem::replace(&mut self.seen_zero_block, true) {
                Step::End
            } else {
                Step::Next
            });
        }
        let header = Header::new(block);
        let fail = |problem| LayerError::entry(&header.path(), offset, problem);
        if self.seen_zero_block {
            return Err(fail(EntryProblem::LoneZeroBlock));
        }
        header.verify_checksum().map_err(fail)?;
        match header.typeflag() {
            typeflag @ (b'x' | b'g' | b'L' | b'K') => {
                header.verify_numbers().map_err(fail)?;
                let size = header.size().map_err(fail)?;
                if size > self.longest_extension {
                    return Err(fail(EntryProblem::Limit {
                        what: "extended header",
                        name: "pax_bytes",
                        limit: self.longest_extension,
                    }));
                }
                self.extensions.start(offset);
                self.expected = Some(typeflag);
                Ok(Step::Extension(size))
            }
            _ => {
                let extensions = std::mem::take(&mut self.extensions);
                let name = extensions.path().map_or_else(|| header.path(), <[u8]>::to_vec);
                let offset = extensions.offset().unwrap_or(offset);
                let member = match self.failed.take() {
                    Some(problem) => Err(problem),
                    None => extensions.member(&header, offset),
                };
                member
                    .map(|member| Step::Member(Box::new(member)))
                    .map_err(|problem| LayerError::entry(&name, offset, problem))
            }
        }
    }

    /// Takes the data of the extension header that [`Members::header`] announced: `len` bytes and padding.
    pub(crate) fn extension(&mut self, padded: &[u8], len: usize) {
        let typeflag = self.expected.take().expect("the caller follows the steps");
        let (data, padding) = padded.split_at(len);
        // Other tools read such a name up to the first NUL, be it beyond the size.
        let runs_on = !data.contains(&0) && padding.first().is_some_and(|byte| *byte != 0);
        if matches!(typeflag, b'L' | b'K') && runs_on {
            let problem = "a GNU long name goes on behind its size".to_owned();
            self.failed.get_or_insert(EntryProblem::Extension(problem));
        }
        if let Err(problem) = self.extensions.add(typeflag, data) {
            self.failed.get_or_insert(problem);
        }
    }

    /// The archive ends at `offset`, between two members or not.
    pub(crate) fn end(&mut self, offset: u64) -> Result<(), LayerError> {
        let problem = match self.failed.take() {
            Some(problem) => problem,
            None if self.extensions.is_empty() => return Ok(()),
            None => EntryProblem::DanglingExtension,
        };
        self.extensions.start(offset);
        Err(self.pending_error(problem))
    }

    /// An error about the entry whose extension headers were read last.
    pub(crate) fn pending_error(&self, problem: EntryProblem) -> LayerError {
        let name = self.extensions.path().unwrap_or(b"(not named yet)");
        LayerError::entry(name, self.extensions.offset().unwrap_or(0), problem)
    }

    /// The archive ends inside the header at `offset`.
    pub(crate) fn truncated(&self, offset: u64) -> LayerError {
        let name = self.extensions.path().unwrap_or(b"(not named yet)");
        LayerError::entry(name, offset, EntryProblem::Truncated)
    }
}
