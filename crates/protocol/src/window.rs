//! Flow control: how much may be in flight on a stream, in one direction.

/// Bytes of `Data` that a sender may have in flight on one stream before it needs `Credit`.
pub const WINDOW: u32 = 256 * 1024;

/// The peer sent more than it was allowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes arrived where the window allows {allowed}")]
pub struct WindowExceeded {
    /// What arrived.
    pub bytes: u32,
    /// What was allowed.
    pub allowed: u32,
}

/// The receiver's account of one stream and direction.
///
/// Credit is given back in portions of a quarter window: fewer frames, and the sender never waits
/// as long as the consumer keeps up.
#[derive(Debug)]
pub struct ReceiveWindow {
    allowed: u32,
    owed: u32,
}

impl Default for ReceiveWindow {
    fn default() -> Self {
        Self { allowed: WINDOW, owed: 0 }
    }
}

impl ReceiveWindow {
    /// Notes the arrival of `bytes`.
    pub fn arrived(&mut self, bytes: u32) -> Result<(), WindowExceeded> {
        match self.allowed.checked_sub(bytes) {
            Some(rest) => {
                self.allowed = rest;
                Ok(())
            }
            None => Err(WindowExceeded { bytes, allowed: self.allowed }),
        }
    }

    /// Notes that the consumer took `bytes`; says how much credit to send now, if any.
    pub fn consumed(&mut self, bytes: u32) -> Option<u32> {
        self.owed = self.owed.saturating_add(bytes);
        if self.owed < WINDOW / 4 {
            return None;
        }
        let credit = std::mem::take(&mut self.owed);
        self.allowed = self.allowed.saturating_add(credit).min(WINDOW);
        Some(credit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_waits_for_credit_is_never_refused_and_never_starved() {
        let mut window = ReceiveWindow::default();
        let mut sender = WINDOW;
        for _ in 0..10_000 {
            let size = sender.min(7_001);
            assert!(size > 0, "the sender is starved");
            sender -= size;
            window.arrived(size).unwrap();
            if let Some(credit) = window.consumed(size) {
                sender += credit;
            }
        }
    }

    #[test]
    fn more_than_the_window_is_refused() {
        let mut window = ReceiveWindow::default();
        window.arrived(WINDOW - 1).unwrap();
        assert_eq!(window.arrived(2), Err(WindowExceeded { bytes: 2, allowed: 1 }));
    }
}
