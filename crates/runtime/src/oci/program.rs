//! Running a program with a deadline.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    MemfdFlags, SealFlags, StatVfs, fcntl_add_seals, ftruncate, memfd_create, statvfs,
};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::sys::{self, Surroundings};

/// How much of what a program says is kept. The rest it cannot even write.
const SAID_MAX: u64 = 16 * 1024;
/// How much of it an error quotes, from the end.
const QUOTED_MAX: usize = 1200;

/// How a program that was run has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("it could not be started")]
    Start(#[source] io::Error),
    #[error("it could not be waited for")]
    Wait(#[source] io::Error),
    #[error("it did not end within {deadline:?} and was killed{said}")]
    Deadline { deadline: Duration, said: Said },
    #[error("it ended with {status}{said}")]
    Failed { status: ExitStatus, said: Said },
    #[error("{problem}; the file system of {} has hardly any room left", path.display())]
    NoRoom {
        problem: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What a program said, for the end of a sentence.
#[derive(Debug)]
pub(super) struct Said(pub(super) String);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.trim();
        if text.is_empty() {
            return f.write_str(", and said nothing");
        }
        let start = text.len().saturating_sub(QUOTED_MAX);
        let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let cut = if start > 0 { "…" } else { "" };
        write!(f, ": {cut}{}", text[start..].escape_debug().to_string().replace("\\n", "; "))
    }
}

/// Runs `command` to its end and gives what it said. It has a process group and a mount namespace of its
/// own; all of the group is killed at the deadline. Blocks.
pub(super) fn run(
    mut command: Command,
    surroundings: Surroundings,
    deadline: Duration,
) -> Result<String, ProgramError> {
    let start = ProgramError::Start;
    let voice = voice().map_err(start)?;
    let speak = || voice.try_clone().map(Stdio::from).map_err(start);
    command.stdout(speak()?).stderr(speak()?);
    let status = complete(command, surroundings, deadline);
    let said = said(&voice);
    status.map(|()| said.clone()).map_err(|error| error.with(said))
}

/// As [`run`], for a program that leaves something running which inherits where it speaks to: it is not
/// heard. What it writes into `log` takes the place of that.
pub(super) fn run_unheard(
    mut command: Command,
    surroundings: Surroundings,
    deadline: Duration,
    log: &Path,
) -> Result<(), ProgramError> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = complete(command, surroundings, deadline);
    status.map_err(|error| error.with(logged(log)))
}

/// The end of a log.
pub(super) fn logged(log: &Path) -> String {
    let read = File::open(log).and_then(|file| {
        let start = file.metadata()?.len().saturating_sub(SAID_MAX);
        let mut bytes = vec![0; SAID_MAX as usize];
        let length = file.read_at(&mut bytes, start)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    });
    read.unwrap_or_default()
}

fn complete(
    mut command: Command,
    surroundings: Surroundings,
    deadline: Duration,
) -> Result<(), ProgramError> {
    command.stdin(Stdio::null());
    sys::surround(&mut command, surroundings);
    let mut child = command.spawn().map_err(ProgramError::Start)?;
    // With it go the descriptors that were only meant for the child.
    drop(command);
    let said = Said(String::new());
    match wait(&mut child, deadline).map_err(ProgramError::Wait)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(ProgramError::Failed { status, said }),
        None => Err(ProgramError::Deadline { deadline, said }),
    }
}

impl ProgramError {
    /// The same, of a program that keeps its files in `directory`: without room for them it may say
    /// anything.
    pub(super) fn in_room_of(self, directory: &Path) -> Self {
        const LEAST: u64 = 1 << 20;
        let full = |found: StatVfs| found.f_bavail * found.f_frsize < LEAST;
        match self {
            Self::Failed { .. } if statvfs(directory).is_ok_and(full) => Self::NoRoom {
                problem: self.to_string(),
                path: directory.to_owned(),
                source: io::ErrorKind::StorageFull.into(),
            },
            other => other,
        }
    }

    fn with(self, text: String) -> Self {
        match self {
            Self::Failed { status, .. } => Self::Failed { status, said: Said(text) },
            Self::Deadline { deadline, .. } => Self::Deadline { deadline, said: Said(text) },
            other => other,
        }
    }
}

/// A place for what a program says, which does not grow.
fn voice() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("kiln-program", flags)?;
    ftruncate(&file, SAID_MAX)?;
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

fn said(voice: &OwnedFd) -> String {
    let mut bytes = vec![0; SAID_MAX as usize];
    let read = voice.try_clone().and_then(|voice| File::from(voice).read_at(&mut bytes, 0));
    bytes.truncate(read.unwrap_or(0));
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Waits; `None` when the time is over, and the program was killed.
fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let ended = pidfd_open(pid, PidfdFlags::empty()).and_then(|pidfd| {
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    });
    if !matches!(ended, Ok(true)) {
        // The child was not waited for, so the number is still its own.
        let _gone_is_fine = kill_process_group(pid, Signal::KILL);
        child.wait()?;
        ended?;
        return Ok(None);
    }
    child.wait().map(Some)
}

#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a test says what it skips")]
mod tests {
    use super::*;

    fn shell(script: &str, deadline: Duration) -> Result<String, ProgramError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run(command, Surroundings::default(), deadline)
    }

    #[test]
    fn ends_are_told() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP a mount namespace of its own needs root");
            return;
        }
        let minute = Duration::from_mins(1);
        assert_eq!(shell("echo out; echo err >&2", minute).unwrap(), "out\nerr\n");
        let failed = shell("echo no such thing >&2; exit 3", minute).unwrap_err().to_string();
        assert_eq!(failed, "it ended with exit status: 3: no such thing");
        let silent = shell("exit 1", minute).unwrap_err().to_string();
        assert!(silent.ends_with("and said nothing"), "{silent}");
        let missing = run(Command::new("/no/such"), Surroundings::default(), minute);
        assert!(matches!(missing, Err(ProgramError::Start(_))), "{missing:?}");
    }

    #[test]
    fn what_does_not_end_is_killed_with_all_that_it_started() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP a mount namespace of its own needs root");
            return;
        }
        let began = Instant::now();
        let script = "sleep 1000 & echo $!; wait";
        let Err(ProgramError::Deadline { said, .. }) = shell(script, Duration::from_millis(300))
        else {
            panic!("it ended in time");
        };
        assert!(began.elapsed() < Duration::from_secs(30));
        let sleeper = format!("/proc/{}/stat", said.0.trim());
        let running = || {
            let stat = std::fs::read_to_string(&sleeper);
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        while running() {
            assert!(began.elapsed() < Duration::from_secs(30), "{sleeper} runs on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_is_said_is_bounded() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP a mount namespace of its own needs root");
            return;
        }
        let script = "head -c 100000 /dev/zero | tr '\\0' x; exit 1";
        let error = shell(script, Duration::from_mins(1)).unwrap_err().to_string();
        assert!(error.len() < 2 * QUOTED_MAX, "{}", error.len());
        assert!(error.contains('…'));
    }
}
