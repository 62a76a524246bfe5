//! One daemon per data directory.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::ServerError;

/// How long what a dead daemon was about to start may hold its lock: a process has all that its parent
/// had open until it executes a program of its own.
const PATIENCE: Duration = Duration::from_secs(5);

/// Held as long as the daemon uses the data directory; the kernel gives it up with the process.
#[derive(Debug)]
pub(crate) struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the lock, or says which process has it.
    pub(crate) fn take(data_dir: &Path) -> Result<Self, ServerError> {
        let path = data_dir.join("lock");
        let failed = |action| {
            let path = path.clone();
            move |source| ServerError::DataDir { action, path, source }
        };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(failed("lock")(error.into())),
            }
            let mut pid = String::new();
            // The holder may be about to write it; the message then goes without.
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
            let pid = pid.trim().parse().ok();
            if pid.is_none_or(runs) || Instant::now() > deadline {
                return Err(ServerError::Locked { data_dir: data_dir.to_owned(), pid });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed("write"))?;
        Ok(Self { _file: file })
    }
}

/// Whether there is such a process. One that has ended and was not waited for has nothing open.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_a_dead_daemon_has_left_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let path = directory.path().join("lock");
        fs::write(&path, format!("{}\n", dead.id())).unwrap();
        // What the dead one has started keeps the lock a moment longer.
        let held = File::open(&path).unwrap();
        rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut heir = Command::new("sleep").arg("0.2").stdin(held).spawn().unwrap();
        DataLock::take(directory.path()).unwrap();
        assert!(heir.wait().unwrap().success());
    }

    #[test]
    fn the_second_is_told_who_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataLock::take(directory.path()).unwrap();
        let error = DataLock::take(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        DataLock::take(directory.path()).unwrap();
    }
}
