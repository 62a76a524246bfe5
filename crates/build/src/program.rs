//! External programs: each in a process group of its own, and none without a deadline.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How many lines of its messages an error shows.
const LINES: usize = 8;
/// How much of one line is kept.
const LINE: u64 = 4096;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// It is not installed.
    #[error("`{program}` is not installed; {way_out}")]
    Missing {
        /// Its name.
        program: String,
        /// How to get it.
        way_out: &'static str,
    },
    /// It did not start, or could not be waited for.
    #[error("`{program}` could not be {action}")]
    Run {
        /// Its name.
        program: String,
        /// `started`, `waited for`.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("`{program}` did not end within {} s and was killed", after.as_secs())]
    TimedOut {
        /// Its name.
        program: String,
        /// The time it had.
        after: Duration,
    },
    /// It failed.
    #[error("`{program}` failed ({status}): {}", last_lines.join(" / "))]
    Failed {
        /// Its name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its messages.
        last_lines: Vec<String>,
    },
}

/// Whether a program is found in `PATH`.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Runs `command` and gives its output to `consume`, on a thread that may block. Its messages go to
/// `line`, one at a time. Gives both results: a consumer may well succeed on the output of a program
/// that then fails.
pub(crate) async fn run<T: Send + 'static>(
    mut command: Command,
    way_out: &'static str,
    deadline: Duration,
    mut line: impl FnMut(&str) + Send,
    consume: impl FnOnce(File) -> T + Send + 'static,
) -> Result<(Result<(), ProgramError>, T), ProgramError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let failed = |action: &'static str| {
        let program = program.clone();
        move |source: io::Error| ProgramError::Run { program, action, source }
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ProgramError::Missing { program: program.clone(), way_out },
        _ => failed("started")(source),
    })?;
    let group = Group::of(&child);
    let stdout = child.stdout.take().expect("it is piped").into_owned_fd();
    let stdout = File::from(stdout.map_err(failed("started"))?);
    let stderr = child.stderr.take().expect("it is piped");
    let consumer = tokio::task::spawn_blocking(move || consume(stdout));

    let mut last_lines = VecDeque::new();
    let ended = tokio::time::timeout(deadline, async {
        let mut messages = BufReader::new(stderr);
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            match (&mut messages).take(LINE).read_until(b'\n', &mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&buffer);
            let text = text.trim_end();
            if !text.is_empty() {
                line(text);
                if last_lines.len() == LINES {
                    last_lines.pop_front();
                }
                last_lines.push_back(text.to_owned());
            }
        }
        child.wait().await
    })
    .await;
    let result = match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(ProgramError::Failed {
            program: program.clone(),
            status,
            last_lines: last_lines.into(),
        }),
        Ok(Err(source)) => Err(failed("waited for")(source)),
        Err(_) => {
            group.kill();
            let _ = child.wait().await;
            Err(ProgramError::TimedOut { program: program.clone(), after: deadline })
        }
    };
    group.disarm();
    let consumed = consumer.await.map_err(|error| failed("read")(io::Error::other(error)))?;
    Ok((result, consumed))
}

/// A process group that is killed when this value goes before the work is done.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }

    /// Kills the group. Its leader has not been waited for, so the number is still its own.
    fn kill(&self) {
        if let Some(group) = self.0 {
            let _nothing_is_left = kill_process_group(group, Signal::KILL);
        }
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn text(mut file: File) -> String {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[tokio::test]
    async fn output_messages_and_status() {
        let mut lines = Vec::new();
        let add = |line: &str| lines.push(line.to_owned());
        let script = "echo out; echo one >&2; echo two >&2; exit 3";
        let deadline = Duration::from_secs(20);
        let (result, output) = run(shell(script), "", deadline, add, text).await.unwrap();
        assert_eq!(
            (output.as_str(), lines.as_slice()),
            ("out\n", &["one".into(), "two".into()][..])
        );
        let error = result.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("one / two"), "{error}");
    }

    #[tokio::test]
    async fn a_deadline_ends_the_whole_group() {
        let started = Instant::now();
        // The grandchild keeps the pipes open; only killing the group ends the reader.
        let script = "sleep 600 & sleep 600";
        let deadline = Duration::from_millis(100);
        let (result, _) = run(shell(script), "", deadline, |_| (), text).await.unwrap();
        assert!(matches!(result, Err(ProgramError::TimedOut { .. })), "{result:?}");
        assert!(started.elapsed() < Duration::from_mins(1));
    }

    #[tokio::test]
    async fn what_is_missing_says_how_to_get_it() {
        let command = Command::new("kiln-no-such-program");
        let run = run(command, "install it", Duration::from_secs(1), |_| (), text).await;
        let error = run.unwrap_err().to_string();
        assert_eq!(error, "`kiln-no-such-program` is not installed; install it");
    }
}
