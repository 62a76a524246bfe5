//! Output as text: decoded piece by piece, and its last lines.

use std::collections::VecDeque;

/// How many lines a failure shows.
const LINES: usize = 20;
/// How many characters of a line it shows.
const LINE: usize = 2000;

/// Makes text of bytes whose pieces may end within a character.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// The text of `bytes`, with what the piece before left over; invalid UTF-8 is replaced.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let unfinished = match std::str::from_utf8(&self.pending) {
            Err(error) if error.error_len().is_none() => self.pending.len() - error.valid_up_to(),
            Ok(_) => 0,
            // Something invalid is in the way; what follows it may still be unfinished.
            Err(_) => unfinished_at_end(&self.pending),
        };
        let rest = self.pending.split_off(self.pending.len() - unfinished);
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending = rest;
        text
    }

    /// What is left over when nothing follows.
    pub(crate) fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// How many bytes at the end are the beginning of a character.
fn unfinished_at_end(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|count| {
            let end = &bytes[bytes.len() - count..];
            end[0] >= 0xC0
                && std::str::from_utf8(end)
                    .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

/// Keeps the last lines of an output.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
    current: String,
    /// Whether a carriage return was seen, after which the line is written anew.
    returned: bool,
}

impl Tail {
    /// Adds a piece of output.
    pub(crate) fn push(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '\n' => self.end_line(),
                '\r' => self.returned = true,
                other => {
                    if self.returned {
                        self.current.clear();
                        self.returned = false;
                    }
                    if self.current.len() < LINE {
                        self.current.push(other);
                    }
                }
            }
        }
    }

    fn end_line(&mut self) {
        self.returned = false;
        let line = std::mem::take(&mut self.current);
        if line.trim().is_empty() {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The last lines, oldest first.
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.end_line();
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_make_the_same_text_as_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in ".{0,40}",
            cuts in proptest::collection::vec(0_usize..400, 0..12),
        ) {
            let mut whole = text.clone().into_bytes();
            whole.extend(&bytes);
            whole.extend(text.bytes());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let mut decoder = Decoder::default();
            let mut pieces: String =
                cuts.windows(2).map(|pair| decoder.push(&whole[pair[0]..pair[1]])).collect();
            pieces.push_str(&decoder.finish());
            prop_assert_eq!(pieces, String::from_utf8_lossy(&whole));
        }
    }

    #[test]
    fn last_lines() {
        let mut tail = Tail::default();
        for number in 0..30 {
            tail.push(&format!("line {number}\n"));
        }
        tail.push("10 %\r50 %\r100 %\n\n  \nlast\r\nwithout end");
        let lines = tail.finish();
        assert_eq!(lines.len(), 20);
        assert_eq!(lines[16..], ["line 29", "100 %", "last", "without end"]);
    }

    #[test]
    fn endless_lines_are_cut() {
        let mut tail = Tail::default();
        tail.push(&"x".repeat(1 << 20));
        assert_eq!(tail.finish()[0].len(), LINE);
    }
}
