//! The demo's daemon: in the background, with its data under `target/demo`.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// A running daemon and how to speak to it.
pub(super) struct Daemon {
    pid: u32,
    directory: PathBuf,
    program: PathBuf,
}

impl Daemon {
    /// Starts one on a fresh data directory; an earlier demo's daemon and data are removed first.
    pub(super) fn start() -> Result<Self> {
        let target = crate::root().join("target");
        let directory = target.join("demo");
        let program = target.join("release/kiln");
        remove_earlier(&directory, &program)?;
        fs::create_dir_all(&directory)
            .with_context(|| format!("could not make {}", directory.display()))?;
        let log = File::create(directory.join("daemon.log"))?;
        let child = Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        let daemon = Self { pid: child.id(), directory, program };
        fs::write(daemon.pid_file(), child.id().to_string())?;
        daemon.wait_until_ready(child)?;
        Ok(daemon)
    }

    fn wait_until_ready(&self, mut child: std::process::Child) -> Result<()> {
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                self.show_log();
                bail!("the daemon ended at once: {status}");
            }
            if self.socket().exists() && self.command(&["ps"]).output()?.status.success() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.show_log();
        bail!("the daemon does not answer")
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("data/kiln.sock")
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.join("daemon.pid")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(crate::root())
            .env("KILN_HOST", self.socket())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs `kiln arguments… --json` and parses what it prints. Progress is shown.
    pub(super) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.push("--json");
        serde_json::from_str(&self.line(&all)?).context("the output is not JSON")
    }

    /// Runs `kiln arguments…` and gives what it prints, without the last line end.
    pub(super) fn line(&self, arguments: &[&str]) -> Result<String> {
        self.line_with_input(arguments, "")
    }

    /// The same, with standard input.
    pub(super) fn line_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let shown = arguments.join(" ");
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start kiln {shown}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its input may have closed it already.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "kiln {shown}: {}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Runs `kiln arguments…` and gives its exit code.
    pub(super) fn code(&self, arguments: &[&str]) -> Result<Option<i32>> {
        Ok(self.command(arguments).status()?.code())
    }

    /// How it mounts layers, by its own word. `KILN_LAYERS` chooses, as for any daemon.
    pub(super) fn layers(&self) -> Result<String> {
        let log = fs::read_to_string(self.directory.join("daemon.log"))?;
        let mode = ["erofs", "directory"].into_iter().find(|mode| {
            // With or without the codes that colour a terminal.
            log.lines().any(|line| line.contains("layers") && line.contains(&format!("\"{mode}\"")))
        });
        mode.map(str::to_owned).context("the daemon's log does not say how layers are mounted")
    }

    /// Shows the end of the daemon's log.
    pub(super) fn show_log(&self) {
        let log = fs::read_to_string(self.directory.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("the daemon's last words:");
        for line in &lines[lines.len().saturating_sub(40)..] {
            eprintln!("  {line}");
        }
    }

    /// Removes sandboxes, daemon and data, and proves that nothing is left.
    pub(super) fn remove(&self) -> Result<()> {
        remove_earlier(&self.directory, &self.program)?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let left = mounts.lines().find(|line| line.contains(&*self.directory.to_string_lossy()));
        ensure!(left.is_none(), "a mount was left: {left:?}");
        ensure!(!is_kiln(self.pid, &self.program), "the daemon still runs");
        Ok(())
    }

    /// Says how to go on.
    pub(super) fn leave_running(&self) {
        let socket = self.socket();
        println!(
            "\nThe daemon keeps running. To use it:\n  \
             export KILN_HOST={socket}\n  \
             alias kiln={program}\n  \
             kiln ps; kiln shell demo; kiln run python-ml -- python3 -c 'print(6 * 7)'\n\
             To stop it (sandboxes run on until they are removed):\n  \
             kill {pid}\n\
             To remove everything:\n  \
             kiln rm -f demo copy; kill {pid}; rm -rf {directory}",
            socket = socket.display(),
            program = self.program.display(),
            pid = self.pid,
            directory = self.directory.display(),
        );
    }
}

/// Ends what an earlier demo left: its sandboxes, its daemon, its data.
fn remove_earlier(directory: &Path, program: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    let pid: Option<u32> = fs::read_to_string(directory.join("daemon.pid"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .filter(|pid| is_kiln(*pid, program));
    if let Some(pid) = pid {
        let socket = directory.join("data/kiln.sock");
        let kiln = |arguments: &[&str]| {
            Command::new(program).env("KILN_HOST", &socket).args(arguments).output()
        };
        let list = kiln(&["ps", "--json"])?.stdout;
        let sandboxes: Vec<Value> = serde_json::from_slice(&list).unwrap_or_default();
        for id in sandboxes.iter().filter_map(|sandbox| sandbox["id"].as_str()) {
            kiln(&["rm", "-f", id])?;
        }
        Command::new("kill").arg(pid.to_string()).status()?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while is_kiln(pid, program) {
            ensure!(Instant::now() < deadline, "the daemon {pid} does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }
    fs::remove_dir_all(directory)
        .with_context(|| format!("could not remove {}", directory.display()))
}

/// Whether `pid` is a daemon of this program, and not a zombie or another program by now.
fn is_kiln(pid: u32, program: &Path) -> bool {
    let Ok(running) = fs::read_link(format!("/proc/{pid}/exe")) else {
        return false;
    };
    // A rebuilt program leaves the running one under its old name, marked as deleted.
    running.to_string_lossy().trim_end_matches(" (deleted)") == program.to_string_lossy()
}
