//! Terminals: a pair from the guest's own devpts.

use std::os::fd::OwnedFd;

use kiln_protocol::PtySize;
use rustix::fs::{Mode, Uid, fchmod, fchown};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};

/// A new terminal: the agent's end and the program's.
pub(crate) fn open(size: PtySize, uid: u32) -> Result<(OwnedFd, OwnedFd), Errno> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let slave =
        ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    resize(&master, size);
    // The user's, so that programs can open it again by its name. Its group stays devpts' own.
    let _programs_that_keep_the_descriptor_work = fchown(&slave, Some(Uid::from_raw(uid)), None)
        .and_then(|()| fchmod(&slave, Mode::from_raw_mode(0o620)));
    Ok((master, slave))
}

pub(crate) fn resize(master: &OwnedFd, size: PtySize) {
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    let _a_terminal_that_hung_up_has_no_size = tcsetwinsize(master, size);
}

/// The character that ends the input, when the terminal is in line mode.
pub(crate) fn end_of_input(master: &OwnedFd) -> Option<u8> {
    let modes = tcgetattr(master).ok()?;
    let line_mode = modes.local_modes.contains(LocalModes::ICANON);
    line_mode.then(|| modes.special_codes[SpecialCodeIndex::VEOF])
}
