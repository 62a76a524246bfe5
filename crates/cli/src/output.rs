//! What commands print: tables for people, JSON for programs, errors with their way out.

use std::borrow::Cow;
use std::io::{self, Write as _};

use jiff::Timestamp;
use kiln_client::ClientError;
use serde::Serialize;

/// Prints one value as a line of JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")
}

/// Prints one line.
pub(crate) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", visible(text))
}

/// Text of others (names, labels, output of build steps) as a terminal may have it: colours are left
/// out, and every other control character is written as an escape, so that none of them moves the
/// cursor, renames the window or rewrites what was printed before.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| c == '\t' || !(c.is_control() || is_bidi_control(c));
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = rest.strip_prefix("\u{1b}[").map(|colour| {
            colour.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';' || c == ':')
        });
        if let Some(after) = after.and_then(|after| after.strip_prefix('m')) {
            rest = after;
            continue;
        }
        if harmless(c) {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(out)
}

/// Characters that change the order in which others are shown.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Prints rows under a header, columns aligned.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let mut widths = header.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(visible(cell).chars().count());
        }
    }
    let mut out = io::stdout().lock();
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| visible(cell).into_owned())).collect();
    for row in std::iter::once(&header.map(str::to_owned)).chain(&rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// `error`, its causes, and a hint where there is one.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut text = format!("error: {}", visible(&error.to_string()));
    for cause in error.chain().skip(1) {
        text.push_str(&format!("\n  because: {}", visible(&cause.to_string())));
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Problem(problem)) => {
            text = format!("error: {}", visible(&problem.detail));
            if let Some(hint) = &problem.hint {
                text.push_str(&format!("\n  hint: {}", visible(hint)));
            }
        }
        Some(ClientError::Connect { .. }) => {
            text.push_str(
                "\n  hint: start the daemon with `kiln serve`, or name another one with --host",
            );
        }
        _ => {}
    }
    text
}

/// A size for people: `123.5 MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut whole = 1_u64;
    while bytes / whole >= 1000 && unit + 1 < UNITS.len() {
        whole *= 1000;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", bytes / whole, bytes % whole / (whole / 10), UNITS[unit]),
    }
}

/// Seconds for people, from milliseconds: `3.2`.
pub(crate) fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}

/// How long ago a time was, for people.
pub(crate) fn age(time: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(time).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456_789, "123.4 MB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        for (text, shown) in [
            ("plain äöü 日本\t|", "plain äöü 日本\t|"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\rb\nc\u{9b}1m", "a\\u{d}b\\u{a}c\\u{9b}1m"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            ("\u{1b}", "\\u{1b}"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn problems_show_their_hint_once() {
        let problem =
            kiln_types::Problem::new(kiln_types::ErrorCode::ImageNotFound, "no image `x`")
                .with_hint("build it");
        let error = anyhow::Error::from(ClientError::Problem(problem));
        assert_eq!(describe(&error), "error: no image `x`\n  hint: build it");
    }
}
