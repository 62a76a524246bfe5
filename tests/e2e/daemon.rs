//! A daemon of its own for each test, and the ways to speak to it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub(crate) const KILN: &str = env!("CARGO_BIN_EXE_kiln");

/// A running `kiln serve` with a data directory of its own. Dropping it removes its sandboxes, ends it
/// and removes the directory.
pub(crate) struct Daemon {
    directory: TempDir,
    child: Option<Child>,
    url: String,
    variables: Vec<(String, String)>,
}

impl Daemon {
    /// A daemon with the default configuration.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// A daemon whose own directory `prepare` has furnished; its data will be in `data` there.
    pub(crate) fn start_after<T>(prepare: impl FnOnce(&Path) -> T) -> (Self, T) {
        let directory = tempfile::Builder::new().prefix("kiln-e2e-").tempdir().unwrap();
        fs::write(directory.path().join("kiln.toml"), "").unwrap();
        let prepared = prepare(directory.path());
        let mut daemon = Self { directory, child: None, url: String::new(), variables: Vec::new() };
        daemon.serve();
        (daemon, prepared)
    }

    /// A daemon with this configuration file.
    pub(crate) fn start_with(config: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-e2e-").tempdir().unwrap();
        fs::write(directory.path().join("kiln.toml"), config).unwrap();
        let mut daemon = Self { directory, child: None, url: String::new(), variables: Vec::new() };
        daemon.serve();
        daemon
    }

    /// Gives it a variable of its environment from its next start on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the program on the same directory (again), and waits until it says that it is ready.
    pub(crate) fn serve(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let mut child = Command::new(KILN)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(self.path("kiln.toml"))
            .arg("--data-dir")
            .arg(self.data())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, ready) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            let first = lines.next().and_then(Result::ok);
            let _ = send.send(first);
            // Keeps reading, so that the daemon never blocks on a full pipe.
            lines.for_each(drop);
        });
        self.child = Some(child);
        match ready.recv_timeout(Duration::from_mins(1)) {
            Ok(Some(line)) => {
                let url = line.split_whitespace().find(|word| word.starts_with("http://"));
                let url = url.unwrap_or_else(|| panic!("no address in {line:?}"));
                url.clone_into(&mut self.url);
            }
            other => panic!("the daemon is not ready ({other:?}); its log:\n{}", self.log()),
        }
    }

    /// Its HTTP address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Its API key.
    pub(crate) fn api_key(&self) -> String {
        fs::read_to_string(self.data().join("api-key")).unwrap().trim().to_owned()
    }

    /// A path in the test's own directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// All that it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// Ends it without any warning, as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends it in order. Sandboxes run on.
    pub(crate) fn terminate(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        signal(child.id(), "TERM");
        let status = child.wait().unwrap();
        assert!(status.success(), "the daemon ended with {status}; its log:\n{}", self.log());
    }

    /// A `kiln` command that speaks to it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(KILN);
        command
            .env("KILN_HOST", self.data().join("kiln.sock"))
            .env_remove("KILN_API_KEY")
            .current_dir(self.directory.path())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs `kiln arguments…` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with_input(arguments, b"")
    }

    /// The same, with standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // A command that does not read its input closes it early; that is its right.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Outcome {
            shown: format!("kiln {}", arguments.join(" ")),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs `kiln arguments…`, which must succeed, and gives its output without the last line end.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, Some(0), "{outcome}\nthe daemon's log:\n{}", self.log());
        outcome.stdout.trim_end_matches('\n').to_owned()
    }

    /// Runs `kiln arguments… --json`, which must succeed, and parses its output.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let (options, argv) = match arguments.iter().position(|word| *word == "--") {
            Some(at) => arguments.split_at(at),
            None => (arguments, &[][..]),
        };
        let all = [options, &["--json"], argv].concat();
        let text = self.ok(&all);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Writes `value` to a file of this name and builds it, which must succeed.
    #[track_caller]
    pub(crate) fn build(&self, name: &str, value: &Value) -> Value {
        let file = self.path(format!("{name}.json"));
        fs::write(&file, value.to_string()).unwrap();
        self.json(&["build", file.to_str().unwrap(), "--name", name])
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_none() {
            self.serve();
        }
        let list = self.run(&["ps", "--json"]).stdout;
        let sandboxes: Vec<Value> = serde_json::from_str(&list).unwrap_or_default();
        for sandbox in &sandboxes {
            self.run(&["rm", "-f", sandbox["id"].as_str().unwrap_or_default()]);
        }
        if let Some(mut child) = self.child.take() {
            signal(child.id(), "TERM");
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

/// How a command ended.
pub(crate) struct Outcome {
    shown: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shown, code, stdout, stderr } = self;
        write!(f, "{shown}: exit code {code:?}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

/// Sends a signal to a process that the test owns.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -s {name} {pid}");
}

/// Polls until `condition` gives something, for at most a minute.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(std::time::Instant::now() < deadline, "never happened: {what}");
        std::thread::yield_now();
    }
}
