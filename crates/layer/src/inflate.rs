//! Which compression an archive has, told by its first bytes, and its reader.

use std::cell::Cell;
use std::io::{self, BufReader, Cursor, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

use crate::error::LayerError;

/// Compressed bytes that are read at once.
const INPUT_BUFFER: usize = 256 << 10;

/// An archive's uncompressed bytes, and how many compressed ones they took.
pub(crate) struct Inflated<'r> {
    pub(crate) reader: Box<dyn Read + 'r>,
    pub(crate) consumed: Rc<Cell<u64>>,
    pub(crate) compressed: bool,
}

impl<'r> Inflated<'r> {
    /// A tar that is not compressed, whatever its first bytes are.
    pub(crate) fn plain(input: impl Read + 'r) -> Self {
        Self { reader: Box::new(input), consumed: Rc::default(), compressed: false }
    }
}

/// Wraps `input` in the decompressor that its first bytes ask for.
pub(crate) fn inflate<'r>(input: impl Read + 'r) -> Result<Inflated<'r>, LayerError> {
    let consumed = Rc::new(Cell::new(0));
    let failed = Rc::new(Cell::new(false));
    let mut counted =
        Counted { inner: input, count: Rc::clone(&consumed), failed: Rc::clone(&failed) };
    let read_error = |source| LayerError::ReadInput { offset: 0, source };
    let magic = first_bytes(&mut counted).map_err(read_error)?;
    let rest = BufReader::with_capacity(INPUT_BUFFER, counted);
    let input = Cursor::new(magic.clone()).chain(rest);
    let (reader, compressed): (Box<dyn Read + 'r>, bool) = match magic[..] {
        [] => return Err(LayerError::NotAnArchive("it is empty")),
        [0x1f, 0x8b, ..] => (Box::new(Decoded { inner: MultiGzDecoder::new(input), failed }), true),
        // A data frame, or one of the sixteen skippable frames that may come first (RFC 8878).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(read_error)?;
            (Box::new(Decoded { inner: decoder, failed }), true)
        }
        [b'B', b'Z', b'h', ..] => {
            return Err(LayerError::NotAnArchive(
                "it is compressed with bzip2; use plain tar, gzip or zstd",
            ));
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            return Err(LayerError::NotAnArchive(
                "it is compressed with xz; use plain tar, gzip or zstd",
            ));
        }
        _ => (Box::new(input), false),
    };
    Ok(Inflated { reader, consumed, compressed })
}

/// Up to six bytes, however small the pieces in which a pipe hands them out.
fn first_bytes(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut magic = Vec::with_capacity(6);
    input.take(6).read_to_end(&mut magic)?;
    Ok(magic)
}

struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
    /// Whether `inner` gave an error, so that what the decompressor says is not its own finding.
    failed: Rc<Cell<bool>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer).inspect_err(|error| {
            self.failed.set(error.kind() != io::ErrorKind::Interrupted);
        })?;
        self.count.set(self.count.get() + read as u64);
        Ok(read)
    }
}

/// A decompressor whose own errors have the kind `InvalidData`; zstd's have none that tells.
struct Decoded<R> {
    inner: R,
    failed: Rc<Cell<bool>>,
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ if self.failed.get() => error,
            _ => io::Error::new(io::ErrorKind::InvalidData, error),
        })
    }
}
