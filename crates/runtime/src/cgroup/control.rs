//! Control files: read, written, and taken apart.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::CgroupError;

/// Writes a file that exists. Never makes one: a control file that is missing is not there to be made.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let written = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(failed("write", path))
}

/// Writes a file if it exists; says whether it does.
pub(super) fn write_if_there(path: &Path, value: &str) -> Result<bool, CgroupError> {
    match write(path, value) {
        Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(false)
        }
        other => other.map(|()| true),
    }
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(failed("read", path))
}

/// Reads a file that holds one number.
pub(super) fn read_number(path: &Path) -> Result<u64, CgroupError> {
    let content = read(path)?;
    content.trim().parse().map_err(|_| unexpected(path, &content, "number"))
}

/// Reads one number of a file of `key number` lines.
pub(super) fn read_keyed(path: &Path, key: &'static str) -> Result<u64, CgroupError> {
    let content = read(path)?;
    keyed(&content, key).ok_or_else(|| unexpected(path, &content, key))
}

/// Reads a list of processes. Those outside of our own process namespace show as 0 and are left out.
pub(super) fn read_pids(path: &Path) -> Result<Vec<u32>, CgroupError> {
    let content = read(path)?;
    content
        .lines()
        .map(|line| line.parse().map_err(|_| unexpected(path, &content, "process number")))
        .filter(|pid| !matches!(pid, Ok(0)))
        .collect()
}

/// The number of a key.
pub(super) fn keyed(content: &str, key: &str) -> Option<u64> {
    content.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The names of the directories in a directory, in order; none if it is not there.
pub(super) fn directories(path: &Path) -> Result<Vec<String>, CgroupError> {
    let entries = match fs::read_dir(path) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        other => other.map_err(failed("list", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

/// Whether an error says that a group is not, or no longer, there.
pub(super) fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// What to do with an error about a path.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.into();
    move |source| CgroupError::File { action, path, source }
}

fn unexpected(path: &Path, content: &str, expected: &'static str) -> CgroupError {
    CgroupError::Content { path: path.into(), content: content.trim_end().into(), expected }
}

/// Time that is left for something, in growing steps.
#[derive(Debug)]
pub(super) struct Patience {
    start: Instant,
    limit: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Patience {
        Patience { start: Instant::now(), limit }
    }

    /// How long to wait before looking again, `None` when the time is over. Short at first: most
    /// things are done at once, and the kernel holds notifications back for 10 ms.
    pub(super) fn step(&self) -> Option<Duration> {
        let spent = self.start.elapsed();
        let left = self.limit.checked_sub(spent).filter(|left| !left.is_zero())?;
        let step = (spent / 4).clamp(Duration::from_micros(500), Duration::from_millis(10));
        Some(step.min(left))
    }

    /// The error when the time is over.
    pub(super) fn timeout(&self, path: PathBuf, state: &'static str) -> CgroupError {
        CgroupError::Timeout { path, state, waited: self.start.elapsed() }
    }
}

#[cfg(test)]
mod tests {
    use super::keyed;

    #[test]
    fn keys_are_whole_words() {
        let content = "oom_kill_disable 0\nunder_oom 1\noom_kill 3\n";
        let cases = [("oom_kill", Some(3)), ("under_oom", Some(1)), ("oom", None), ("kill", None)];
        for (key, expected) in cases {
            assert_eq!(keyed(content, key), expected, "{key}");
        }
        assert_eq!(keyed("oom_kill x\n", "oom_kill"), None);
    }
}
