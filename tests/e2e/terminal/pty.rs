//! A pseudo-terminal, and a program in a session of its own on it.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// A terminal on which nothing runs yet.
pub(crate) struct Pty {
    master: OwnedFd,
    user: OwnedFd,
}

impl Pty {
    pub(crate) fn open(rows: u16, cols: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let user = rustix::fs::open(&name, flags, Mode::empty()).unwrap();
        let pty = Self { master, user };
        resize(&pty.master, rows, cols);
        pty
    }

    /// Everything that can be set on the terminal.
    pub(crate) fn all_modes(&self) -> String {
        format!("{:?}", tcgetattr(&self.user).unwrap())
    }

    /// Runs `command` as the leader of a session whose terminal this is.
    pub(crate) fn run(self, command: Command) -> Session {
        let end = || self.user.try_clone().unwrap();
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            session.current_dir(directory);
        }
        let session = session.env("TERM", "kiln-test").stdin(end()).stdout(end()).stderr(end());
        let child = session.spawn().unwrap();
        rustix::io::ioctl_fionbio(&self.master, true).unwrap();
        let master = File::from(self.master);
        Session { master: Some(master), user: Some(self.user), child, unread: String::new() }
    }
}

/// A program on a terminal.
pub(crate) struct Session {
    master: Option<File>,
    user: Option<OwnedFd>,
    child: Child,
    unread: String,
}

impl Session {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn send(&mut self, keys: &str) {
        self.master.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until `wanted` was seen; gives all that came since the last time, `wanted` included.
    #[track_caller]
    pub(crate) fn expect(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(at) = self.unread.find(wanted) {
                let rest = self.unread.split_off(at + wanted.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            assert!(Instant::now() < deadline, "no {wanted:?} in {:?}", self.unread);
            if !self.read_some() {
                std::thread::yield_now();
            }
        }
    }

    /// Whether there was something to read.
    fn read_some(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.master.as_mut().unwrap().read(&mut buffer) {
            Ok(count) => {
                self.unread.push_str(&String::from_utf8_lossy(&buffer[..count]));
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("the terminal broke: {error}"),
        }
    }

    /// What was shown and not yet expected.
    pub(crate) fn rest(&mut self) -> String {
        while self.read_some() {}
        std::mem::take(&mut self.unread)
    }

    /// Waits for the program's end and gives its exit code; reads on meanwhile.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            self.read_some();
            assert!(Instant::now() < deadline, "it runs on after {:?}", self.unread);
            std::thread::yield_now();
        }
    }

    pub(crate) fn resize(&self, rows: u16, cols: u16) {
        resize(self.master.as_ref().unwrap(), rows, cols);
    }

    /// What the terminal does with what is typed.
    pub(crate) fn modes(&self) -> LocalModes {
        tcgetattr(self.user.as_ref().unwrap()).unwrap().local_modes
    }

    pub(crate) fn all_modes(&self) -> String {
        format!("{:?}", tcgetattr(self.user.as_ref().unwrap()).unwrap())
    }

    /// The window is closed; the program has to end by itself.
    pub(crate) fn hang_up(mut self) {
        self.user.take();
        self.master.take();
        let deadline = Instant::now() + DEADLINE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it outlives its terminal");
            std::thread::yield_now();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn resize(master: impl std::os::fd::AsFd, rows: u16, cols: u16) {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).unwrap();
}
