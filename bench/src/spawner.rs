//! Programs that have to run in another mount namespace: a second process of this program lives there,
//! starts them and takes their time, so that getting there is not part of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::program;

/// A process that runs programs where the v2 control group hierarchy is not mounted: the Debian version of
/// one peer refuses hosts that have controllers in both versions.
#[derive(Debug)]
pub(crate) struct Spawner {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    nanos: u64,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Spawner {
    /// Starts one.
    pub(crate) fn start() -> Result<Self> {
        let myself = std::env::current_exe().context("where this program is")?;
        let script = "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; \
                      exec \"$0\" --spawner";
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(myself)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A terminal's signals are for the program that ends this one in order.
            .process_group(0)
            .spawn()
            .context("could not start unshare")?;
        let stdin = child.stdin.take().context("the spawner has no input")?;
        let stdout = BufReader::new(child.stdout.take().context("the spawner has no output")?);
        Ok(Self { child, stdin, stdout })
    }

    /// Runs a program; fails when it does.
    pub(crate) fn succeed(&mut self, words: &[String]) -> Result<Duration> {
        writeln!(self.stdin, "{}", serde_json::to_string(words)?)?;
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "the spawner ended");
        let answer: Answer = serde_json::from_str(&line).context("the spawner's answer")?;
        ensure!(
            answer.code == Some(0),
            "{}: exit code {:?}\n{}{}",
            words.join(" "),
            answer.code,
            answer.stdout,
            answer.stderr
        );
        Ok(Duration::from_nanos(answer.nanos))
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other end: a line with the words of a command in, a line about its end out.
pub(crate) fn serve() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let words: Vec<String> = serde_json::from_str(&line?)?;
        let done = program::run(&mut program::command(&words))?;
        let answer = Answer {
            nanos: u64::try_from(done.time.as_nanos()).unwrap_or(u64::MAX),
            code: done.status.code(),
            stdout: done.stdout,
            stderr: done.stderr,
        };
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}
