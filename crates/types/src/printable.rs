//! Text of others in messages of ours.

use std::fmt::{self, Write as _};

/// The most characters that are shown.
const LONGEST: usize = 400;

/// A text on one line, without control characters, not endless.
pub(crate) struct Printable<'t>(pub(crate) &'t str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars().take(LONGEST) {
            if character.is_control() {
                write!(f, "{}", character.escape_debug())?;
            } else {
                f.write_char(character)?;
            }
        }
        if self.0.chars().nth(LONGEST).is_some() { f.write_char('…') } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_that_ends() {
        for (text, shown) in
            [("a b\u{e4}", "a b\u{e4}"), ("a\n\u{1b}\0\u{7f}", "a\\n\\u{1b}\\0\\u{7f}")]
        {
            assert_eq!(Printable(text).to_string(), shown);
        }
        assert_eq!(Printable(&"x".repeat(1000)).to_string().chars().count(), LONGEST + 1);
    }
}
