//! Where a tar's bytes come from.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use kiln_types::{DiffId, Digest};
use sha2::{Digest as _, Sha256};

use crate::error::LayerError;
use crate::inflate::Inflated;
use crate::limits::Limits;

/// Uncompressed bytes that are moved at once.
const CHUNK: usize = 256 << 10;

/// Bytes read around a header when data are passed over.
const WINDOW: usize = 16 << 10;

/// A tar that is read from front to back.
pub(crate) trait Source {
    /// Bytes read or skipped so far.
    fn position(&self) -> u64;

    /// Fills `buffer`; fewer bytes mean that the tar ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError>;

    /// Passes over `count` bytes; fewer mean that the tar ends.
    fn skip(&mut self, count: u64) -> Result<u64, LayerError>;
}

/// A stream that is hashed and copied as it passes.
pub(crate) struct Streaming<'r, 'l, W> {
    input: Inflated<'r>,
    out: W,
    limits: &'l Limits,
    /// `None` when `out` hashes.
    hash: Option<Sha256>,
    chunk: Box<[u8]>,
    /// The part of `chunk` that was not handed out yet.
    start: usize,
    end: usize,
    /// Bytes before `start`.
    position: u64,
    /// A limit that `chunk` exceeds; said once its bytes are used up, so that the entry can be named.
    exceeded: Option<LayerError>,
}

impl<'r, 'l, W: Write> Streaming<'r, 'l, W> {
    pub(crate) fn new(input: Inflated<'r>, out: W, limits: &'l Limits) -> Self {
        Self { hash: Some(Sha256::new()), ..Self::unhashed(input, out, limits) }
    }

    pub(crate) fn unhashed(input: Inflated<'r>, out: W, limits: &'l Limits) -> Self {
        let chunk = vec![0; CHUNK].into_boxed_slice();
        Self {
            input,
            out,
            limits,
            hash: None,
            chunk,
            start: 0,
            end: 0,
            position: 0,
            exceeded: None,
        }
    }

    /// Reads what is left. Returns the digest and the size of the whole.
    pub(crate) fn finish(mut self) -> Result<(DiffId, u64), LayerError> {
        self.drain()?;
        let hash = self.hash.expect("it was made with one");
        Ok((DiffId(Digest::from_sha256(hash.finalize().into())), self.position))
    }

    /// Reads what is left. Returns the size of the whole, and where it went.
    pub(crate) fn rest(mut self) -> Result<(u64, W), LayerError> {
        self.drain()?;
        Ok((self.position, self.out))
    }

    fn drain(&mut self) -> Result<(), LayerError> {
        self.skip(u64::MAX)?;
        self.out.flush().map_err(LayerError::WriteTar)
    }

    /// Makes sure that `chunk` holds something; `false` at the end.
    fn refill(&mut self) -> Result<bool, LayerError> {
        if self.start < self.end {
            return Ok(true);
        }
        if let Some(error) = self.exceeded.take() {
            return Err(error);
        }
        let read = loop {
            match self.input.reader.read(&mut self.chunk) {
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(LayerError::ReadInput { offset: self.position, source });
                }
            }
        };
        (self.start, self.end) = (0, read);
        if let Some((allowed, error)) = self.exceeded_by(self.position + read as u64) {
            // Parse what is allowed, so that the entry at fault is known; copy nothing more.
            self.exceeded = Some(error);
            self.end = allowed.saturating_sub(self.position) as usize;
            return self.refill();
        }
        let fresh = &self.chunk[..read];
        if let Some(hash) = &mut self.hash {
            hash.update(fresh);
        }
        self.out.write_all(fresh).map_err(LayerError::WriteTar)?;
        Ok(read > 0)
    }

    /// How many bytes are allowed, if `total` is more.
    fn exceeded_by(&self, total: u64) -> Option<(u64, LayerError)> {
        let Limits { tar_bytes, inflate_ratio, inflate_free_bytes, .. } = *self.limits;
        let inflated = self.input.consumed.get().saturating_mul(inflate_ratio);
        let inflated = inflated.max(inflate_free_bytes);
        let (allowed, what, name, limit) = if total > tar_bytes {
            (tar_bytes, "bytes after decompression", "tar_bytes", tar_bytes)
        } else if self.input.compressed && total > inflated {
            (inflated, "bytes of output for each byte of input", "inflate_ratio", inflate_ratio)
        } else {
            return None;
        };
        Some((allowed, LayerError::Limit { entry: String::new(), what, name, limit }))
    }

    fn advance(&mut self, count: usize) {
        self.start += count;
        self.position += count as u64;
    }
}

impl<W: Write> Source for Streaming<'_, '_, W> {
    fn position(&self) -> u64 {
        self.position
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let mut filled = 0;
        while filled < buffer.len() && self.refill()? {
            let count = (self.end - self.start).min(buffer.len() - filled);
            let from = &self.chunk[self.start..self.start + count];
            buffer[filled..filled + count].copy_from_slice(from);
            self.advance(count);
            filled += count;
        }
        Ok(filled)
    }

    fn skip(&mut self, count: u64) -> Result<u64, LayerError> {
        let mut skipped = 0;
        while skipped < count && self.refill()? {
            let step = ((self.end - self.start) as u64).min(count - skipped);
            self.advance(step as usize);
            skipped += step;
        }
        Ok(skipped)
    }
}

/// A file of which only the headers are read.
pub(crate) struct Seeking<'f> {
    file: &'f File,
    len: u64,
    position: u64,
    window: Box<[u8]>,
    /// Where in the file `window` starts, and how much of it is valid.
    window_start: u64,
    window_len: usize,
}

impl<'f> Seeking<'f> {
    pub(crate) fn new(file: &'f File, limits: &Limits) -> Result<Self, LayerError> {
        let metadata = file.metadata();
        let len = metadata.map_err(|source| LayerError::ReadInput { offset: 0, source })?.len();
        if len == 0 {
            return Err(LayerError::NotAnArchive("it is empty"));
        }
        if len > limits.tar_bytes {
            let limit = limits.tar_bytes;
            return Err(LayerError::Limit {
                entry: String::new(),
                what: "bytes",
                name: "tar_bytes",
                limit,
            });
        }
        let window = vec![0; WINDOW].into_boxed_slice();
        Ok(Self { file, len, position: 0, window, window_start: 0, window_len: 0 })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

impl Source for Seeking<'_> {
    fn position(&self) -> u64 {
        self.position
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let window_end = self.window_start + self.window_len as u64;
            if self.position < self.window_start || self.position >= window_end {
                self.window_start = self.position;
                self.window_len = read_at(self.file, &mut self.window, self.position)?;
                if self.window_len == 0 {
                    break;
                }
            }
            let at = (self.position - self.window_start) as usize;
            let count = (self.window_len - at).min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&self.window[at..at + count]);
            filled += count;
            self.position += count as u64;
        }
        Ok(filled)
    }

    fn skip(&mut self, count: u64) -> Result<u64, LayerError> {
        let skipped = count.min(self.len.saturating_sub(self.position));
        self.position += skipped;
        Ok(skipped)
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, LayerError> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(|source| LayerError::ReadInput { offset, source }),
        }
    }
}

/// A file read from its start, whatever its position.
pub(crate) struct FromStart<'f> {
    file: &'f File,
    offset: u64,
}

impl<'f> FromStart<'f> {
    pub(crate) fn new(file: &'f File) -> Self {
        Self { file, offset: 0 }
    }
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
