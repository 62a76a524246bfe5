//! Programs of the host that are asked something: each in a process group of its own, with a deadline.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

const DEADLINE: Duration = Duration::from_secs(2);
/// More than a sensible answer has; a host of containers has thousands of rules.
const MOST: u64 = 16 << 20;

/// The file of a program. Beside `PATH`, where those for root are: not every user's has them.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// What a program says, if it succeeds.
pub(super) fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .ok()?;
    let stdout = child.stdout.take()?;
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.take(MOST).read_to_string(&mut text);
        // Too late is the same as never.
        drop(tell.send(read.map(|_| text)));
    });
    let text = told.recv_timeout(DEADLINE);
    if text.is_err()
        && let Ok(id) = i32::try_from(child.id())
        && let Some(group) = Pid::from_raw(id)
    {
        let _it_may_have_just_ended = kill_process_group(group, Signal::KILL);
    }
    let status = child.wait().ok()?;
    text.ok()?.ok().filter(|_| status.success())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn programs_are_heard_and_ended() {
        let shell = find("sh").unwrap();
        assert_eq!(output(&shell, &["-c", "echo yes"]).as_deref(), Some("yes\n"));
        assert_eq!(output(&shell, &["-c", "echo no; exit 1"]), None);
        assert_eq!(output(Path::new("/no/such/program"), &[]), None);
        let start = Instant::now();
        assert_eq!(output(&shell, &["-c", "echo never; sleep 60; true"]), None);
        assert!(start.elapsed() < Duration::from_secs(30));
        assert!(find("no-such-program").is_none());
    }
}
