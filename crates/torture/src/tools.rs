//! Programs of the host that the daemon runs: each has a stand-in that this side answers, and that can
//! be held at a chosen place of its work, so that a fault hits it for sure.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::daemon::signal;
use crate::stand_in::{ARCHIVE, ARCHIVER, HALF, RUN, SOCKET, VARIABLE, WHOLE, find};

/// Programs that can have a stand-in. Runtimes are asked for their versions, too; that is let pass.
pub(crate) const PROGRAMS: [&str; 5] = ["mke2fs", "mmdebstrap", "apt-get", "crun", "runc"];
/// Those that are drivers' runtimes.
const RUNTIMES: [&str; 2] = ["crun", "runc"];
/// A fault under way is over by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far the work of a program has come when the fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It was started and has done nothing.
    Before,
    /// It works: half of an archive is written, or so many microseconds have passed.
    During(u64),
    /// All is done, and nobody knows.
    After,
}

/// What is to be hit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    pub(crate) program: &'static str,
    pub(crate) moment: Moment,
    /// The daemon dies instead, and the program goes on.
    pub(crate) daemon: Option<u32>,
}

#[derive(Debug, Default)]
struct State {
    hold: Option<Hold>,
    /// A fault is on its way.
    busy: bool,
    hit: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stand-ins of one daemon.
#[derive(Debug)]
pub(crate) struct Tools {
    directory: PathBuf,
    installed: Vec<&'static str>,
    shared: Arc<Shared>,
}

impl Tools {
    /// Makes them in `directory`; `archive` is what is given out as a Debian system.
    pub(crate) fn start(directory: &Path, archive: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let own = std::env::current_exe()?;
        let installed: Vec<&'static str> = PROGRAMS
            .into_iter()
            .filter(|name| *name == ARCHIVER || find(name, directory).is_some())
            .collect();
        for name in &installed {
            symlink(&own, directory.join(name))?;
        }
        symlink(archive, directory.join(ARCHIVE))?;
        let socket = directory.join(SOCKET);
        let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
        let shared = Arc::new(Shared::default());
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if server.state().closed {
                    return;
                }
                let server = Arc::clone(&server);
                std::thread::spawn(move || server.serve(stream));
            }
        });
        Ok(Self { directory: directory.to_owned(), installed, shared })
    }

    /// The names of those that this host has.
    pub(crate) fn installed(&self) -> &[&'static str] {
        &self.installed
    }

    /// The runtimes among them.
    pub(crate) fn runtimes(&self) -> Vec<&'static str> {
        self.installed.iter().copied().filter(|name| RUNTIMES.contains(name)).collect()
    }

    /// What the daemon has to have in its environment.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_default();
        let directory = self.directory.display();
        vec![
            (VARIABLE.to_owned(), directory.to_string()),
            ("PATH".to_owned(), format!("{directory}:{path}")),
        ]
    }

    /// From now on the next run of the program is hit.
    pub(crate) fn arm(&self, hold: Hold) {
        let mut state = self.shared.state();
        state.hit = false;
        state.hold = Some(hold);
    }

    /// Nothing is hit any more; gives whether something was.
    pub(crate) fn disarm(&self) -> bool {
        let mut state = self.shared.state();
        state.hold = None;
        let end = Instant::now() + PATIENCE;
        while state.busy && Instant::now() < end {
            let waited = self.shared.changed.wait_timeout(state, Duration::from_millis(50));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.hit
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        // The listener notices at the next caller.
        drop(UnixStream::connect(self.directory.join(SOCKET)));
    }
}

impl Shared {
    /// Answers one run of a program.
    fn serve(&self, mut stream: UnixStream) {
        let Some(asked) = line(&stream) else { return };
        let hold = {
            let mut state = self.state();
            let wanted = state.hold.is_some_and(|hold| concerns(&hold, &asked));
            let taken = if wanted { state.hold.take() } else { None };
            state.busy |= taken.is_some();
            taken
        };
        let Some(hold) = hold else {
            let _it_may_have_ended = writeln!(stream, "{RUN}");
            return;
        };
        let hit = strike(&hold, stream).unwrap_or(false);
        let mut state = self.state();
        state.busy = false;
        state.hit |= hit;
        self.changed.notify_all();
    }
}

fn concerns(hold: &Hold, asked: &str) -> bool {
    let (program, arguments) = asked.split_once(' ').unwrap_or((asked, ""));
    program == hold.program && (!RUNTIMES.contains(&program) || arguments.contains("\"run\""))
}

fn line(stream: &UnixStream) -> Option<String> {
    let mut text = String::new();
    let read = BufReader::new(stream).read_line(&mut text);
    read.is_ok_and(|length| length > 0).then_some(text)
}

/// Hits a program that waits for an answer; gives whether it, or the daemon, was there to be hit.
fn strike(hold: &Hold, mut stream: UnixStream) -> Result<bool> {
    // Its number here, whatever namespace it is in.
    let process = pidfd_open(socket_peercred(&stream)?.pid, PidfdFlags::empty())?;
    match hold.moment {
        Moment::Before => {}
        Moment::During(_) if hold.program == ARCHIVER => {
            writeln!(stream, "{HALF}")?;
            if line(&stream).is_none() {
                return Ok(false);
            }
        }
        Moment::During(micros) => {
            writeln!(stream, "{RUN}")?;
            std::thread::sleep(Duration::from_micros(micros));
        }
        Moment::After => {
            writeln!(stream, "{WHOLE}")?;
            // It may have failed by itself.
            if line(&stream).is_none() {
                return Ok(false);
            }
        }
    }
    if let Some(daemon) = hold.daemon {
        let killed = signal(daemon, Signal::KILL).is_ok();
        // The program is nobody's now, and does what it was told to. It may have gone with the daemon.
        let _gone = writeln!(stream, "{RUN}");
        return Ok(killed);
    }
    let soon = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&soon))? > 0;
    Ok(!ended && pidfd_send_signal(&process, Signal::KILL).is_ok())
}
