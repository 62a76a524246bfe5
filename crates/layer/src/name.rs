//! Names as archives spell them: bytes, printed and split safely.

use std::fmt::{self, Write as _};

/// Longest name that Linux file systems and the index can hold.
pub(crate) const NAME_MAX: usize = 255;

/// As many symlinks as Linux follows for one path.
pub(crate) const MAX_SYMLINKS: usize = 40;

/// Steps on the ways through symlinks of one layer: names that are looked up on them.
pub(crate) const MAX_STEPS: u64 = 20_000_000;

/// Directories that are made for one layer because symlinks lead to them. One symlink may ask for two
/// thousand, so the number of entries bounds nothing.
pub(crate) const MAX_MADE: usize = 100_000;

/// Bytes that are shown with everything escaped that a terminal or a log could trip over.
pub(crate) struct Printable<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '`' => write!(f, "{}", character.escape_unicode())?,
                    '"' | '\'' => f.write_char(character)?,
                    other => write!(f, "{}", other.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// The components of a path, without empty ones and `.`.
pub(crate) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

/// The components with `/` between them.
pub(crate) fn join<C: AsRef<[u8]>>(components: &[C]) -> Vec<u8> {
    let mut path = Vec::new();
    for component in components {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component.as_ref());
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn print_every_byte_in_a_safe_form() {
        for (bytes, text) in [
            (&b"a/b c"[..], "a/b c"),
            ("\u{e4}\u{1f980}".as_bytes(), "\u{e4}\u{1f980}"),
            (b"a\xffb\xc3", "a\\xffb\\xc3"),
            (b"x\n\x1b[31m`", "x\\n\\u{1b}[31m\\u{60}"),
            (b"a\\n \"'", "a\\\\n \"'"),
            ("\u{202e}".as_bytes(), "\\u{202e}"),
        ] {
            assert_eq!(Printable(bytes).to_string(), text);
        }
    }

    #[test]
    fn split_and_join() {
        for (path, parts) in [
            (&b"./a//b/"[..], &[&b"a"[..], b"b"][..]),
            (b"/", &[]),
            (b".", &[]),
            (b"../x", &[b"..", b"x"]),
        ] {
            let split: Vec<&[u8]> = components(path).collect();
            assert_eq!(split, parts);
        }
        assert_eq!(join(&[&b"a"[..], b"b"]), b"a/b");
    }
}
