//! Running a program of the host to its end, within a time and in a process group of its own.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// More than any message worth reading.
const MOST: u64 = 64 << 10;

pub(super) struct Program<'a> {
    pub(super) name: &'static str,
    /// The package of Debian that has it.
    pub(super) package: &'static str,
    pub(super) arguments: &'a [&'a str],
    /// Set beside what this process has.
    pub(super) environment: &'a [(&'static str, &'static str)],
    pub(super) deadline: Duration,
}

/// The file of a program. Beside `PATH`, where those for root are: not every user's has them.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Runs it; an error is what went wrong, in words.
pub(super) fn run(program: &Program<'_>) -> Result<(), String> {
    let file = find(program.name)
        .ok_or_else(|| format!("it is not installed; install the package {}", program.package))?;
    let mut child = Command::new(file)
        .args(program.arguments)
        .envs(program.environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("it could not be started: {error}"))?;
    let messages = child.stderr.take();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(messages) = messages {
            let _what_there_is = messages.take(MOST).read_to_end(&mut text);
        }
        // Too late is the same as never.
        drop(tell.send(String::from_utf8_lossy(&text).into_owned()));
    });
    let end = Instant::now() + program.deadline;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        match child.try_wait().map_err(|error| format!("it could not be waited for: {error}"))? {
            Some(status) => break status,
            None if Instant::now() < end => std::thread::sleep(pause),
            None => {
                if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    // It has not been waited for, so the number is still its own.
                    let _it_may_have_just_ended = kill_process_group(group, Signal::KILL);
                }
                let _reaped = child.wait();
                return Err(format!("it did not end within {} s", program.deadline.as_secs()));
            }
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    if status.success() {
        return Ok(());
    }
    // A child of its own that lives on may keep the pipe open.
    let text = told.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(3)..].join(" / ");
    Err(format!("it ended with {status}: {last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, deadline: Duration) -> Result<(), String> {
        let (name, package) = ("sh", "dash");
        let environment = &[("KILN_TEST", "7")];
        run(&Program { name, package, arguments: &["-c", script], environment, deadline })
    }

    #[test]
    fn programs_succeed_fail_and_are_ended() {
        let minute = Duration::from_mins(1);
        assert_eq!(shell("test $KILN_TEST = 7", minute), Ok(()));
        let error = shell("echo one >&2; echo two >&2; exit 3", minute).unwrap_err();
        assert!(error.contains("exit status: 3") && error.contains("one / two"), "{error}");
        let error = shell("sleep 600 & sleep 600", Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("within"), "{error}");
        let missing = Program {
            name: "no-such-program",
            package: "nothing",
            arguments: &[],
            environment: &[],
            deadline: minute,
        };
        assert!(run(&missing).unwrap_err().contains("install the package nothing"));
    }
}
