//! One daemon per data directory.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::ServerError;

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
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // The holder may be about to write it; the message then goes without.
                let _ = file.read_to_string(&mut pid);
                return Err(ServerError::Locked {
                    data_dir: data_dir.to_owned(),
                    pid: pid.trim().parse().ok(),
                });
            }
            Err(error) => return Err(failed("lock")(error.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed("write"))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
