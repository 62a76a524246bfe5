//! The daemon under test.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use kiln_client::{Client, Endpoint};
use rustix::process::{Pid, Signal, kill_process};

/// A start that takes longer is given up.
const ABORT: Duration = Duration::from_mins(1);

/// A daemon that runs, or is about to.
#[derive(Debug)]
pub(crate) struct Daemon {
    program: PathBuf,
    directory: PathBuf,
    data: PathBuf,
    config: String,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    client: Client,
}

impl Daemon {
    /// A daemon of this program, with its data in `data` and everything else in `directory`.
    pub(crate) fn new(
        program: &Path,
        directory: &Path,
        data: &Path,
        config: String,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let client = Client::new(Endpoint::Unix(data.join("kiln.sock")))?;
        let (program, directory, data) =
            (program.to_owned(), directory.to_owned(), data.to_owned());
        Ok(Self { program, directory, data, config, environment, child: None, client })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The process, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The file that fail points are armed with.
    pub(crate) fn plan_file(&self) -> PathBuf {
        self.directory.join("fail-point")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.directory.join("daemon.log")
    }

    /// Starts it and waits until it is ready; gives the time that took.
    pub(crate) fn start(&mut self) -> Result<Duration> {
        ensure!(self.child.is_none(), "the daemon runs already");
        let config = self.directory.join("kiln.toml");
        fs::write(&config, &self.config)?;
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let began = Instant::now();
        let mut child = Command::new(&self.program)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(&self.data)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("KILN_FAIL_POINT_FILE", self.plan_file())
            .env("TMPDIR", &self.directory)
            .env("KILN_LOG", "info,kiln_server::request_id=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("could not start {}", self.program.display()))?;
        let stdout = child.stdout.take().context("the daemon has a standard output")?;
        let (send, ready) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            let first = lines.next().and_then(Result::ok);
            drop(send.send(first));
            lines.for_each(drop);
        });
        self.child = Some(child);
        match ready.recv_timeout(ABORT) {
            Ok(Some(_)) => Ok(began.elapsed()),
            Ok(None) => {
                let status = self.reap()?;
                bail!("the daemon ended at its start ({status}):\n{}", self.last_words())
            }
            Err(_) => bail!("the daemon is not ready after {ABORT:?}:\n{}", self.last_words()),
        }
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(pid) = self.pid() {
            // It may have ended by itself, and is reaped below all the same.
            let _ = signal(pid, Signal::KILL);
            self.reap()?;
        }
        Ok(())
    }

    /// Ends it in order.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        if let Some(pid) = self.pid() {
            let _ = signal(pid, Signal::TERM);
            let status = self.reap()?;
            ensure!(status.success(), "after SIGTERM the daemon ended with {status}");
        }
        Ok(())
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        match self.child.as_mut() {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(true),
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn wait_for_end(&mut self) -> Result<()> {
        let began = Instant::now();
        while !self.has_ended()? {
            ensure!(began.elapsed() < ABORT, "the daemon does not end");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn reap(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the daemon was started")?;
        Ok(child.wait()?)
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("torture: the daemon could not be ended: {error}");
        }
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid.try_into()?).context("no process has the number 0")?;
    Ok(kill_process(pid, signal)?)
}
