//! The user's terminal in raw mode, and its size.

use std::io::stdin;
use std::os::fd::AsFd;

use kiln_types::api::PtySize;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Raw mode for as long as this lives.
pub(crate) struct RawMode(Termios);

impl RawMode {
    /// Switches standard input to raw mode; `None` when it is not a terminal.
    pub(crate) fn enter() -> std::io::Result<Option<Self>> {
        if !isatty(stdin()) {
            return Ok(None);
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}

/// The terminal's size; 24 × 80 when there is none.
pub(crate) fn size() -> PtySize {
    match tcgetwinsize(stdin().as_fd()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            PtySize { rows: size.ws_row, cols: size.ws_col }
        }
        _ => PtySize { rows: 24, cols: 80 },
    }
}
