//! The way of a layer's bytes from the network to the thread that unpacks them.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

/// Pieces on their way at most; with what HTTP gives at a time, some hundred KiB.
const DEPTH: usize = 32;

/// A piece of a body, or its verified end.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Bytes.
    Data(Bytes),
    /// There is no more, and what came is what was asked for.
    End,
}

/// The two ends of a feed.
pub(crate) fn feed() -> (mpsc::Sender<Piece>, FeedReader) {
    let (sender, receiver) = mpsc::channel(DEPTH);
    (sender, FeedReader { receiver, current: Bytes::new(), ended: false })
}

/// Reads what is fed. An end that was not sent is an error, so that nothing unverified looks complete.
#[derive(Debug)]
pub(crate) struct FeedReader {
    receiver: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Read for FeedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Data(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the transfer was given up",
                    ));
                }
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_verified_end_is_an_end() {
        for (ended, expected) in [(true, Some("hello world")), (false, None)] {
            let (sender, mut reader) = feed();
            for piece in ["hello", "", " world"] {
                sender.blocking_send(Piece::Data(Bytes::from_static(piece.as_bytes()))).unwrap();
            }
            if ended {
                sender.blocking_send(Piece::End).unwrap();
            }
            drop(sender);
            let mut text = String::new();
            let result = reader.read_to_string(&mut text);
            assert_eq!(result.ok().map(|_| text.as_str()), expected);
        }
    }
}
