//! Kiln, as a program and over its HTTP API.

use std::cell::{RefCell, RefMut};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::http::Connection;
use crate::interrupt;

/// How a daemon is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flavour {
    /// What it is called in the table.
    pub name: &'static str,
    /// Directory of its data.
    pub directory: &'static str,
    /// Environment variables that make it so.
    pub env: &'static [(&'static str, &'static str)],
}

/// As it comes.
pub(crate) const DEFAULT: Flavour = Flavour { name: "kiln", directory: "kiln", env: &[] };

/// The default, and what else it can be.
pub(crate) const FLAVOURS: [Flavour; 3] = [
    DEFAULT,
    Flavour {
        name: "kiln, layers=directory",
        directory: "kiln-layers",
        env: &[("KILN_LAYERS", "directory")],
    },
    Flavour {
        name: "kiln, uppers=directory",
        directory: "kiln-uppers",
        env: &[("KILN_UPPERS", "directory")],
    },
];

/// A running daemon. Dropping it removes its sandboxes, ends it, and waits for that.
#[derive(Debug)]
pub(crate) struct Kiln {
    child: Child,
    program: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    address: SocketAddr,
    key: String,
    connection: RefCell<Option<Connection>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Kiln {
    /// Starts a daemon, and says how long it took until it was ready.
    pub(crate) fn start(
        program: &Path,
        data: &Path,
        env: &[(&str, &str)],
        plain_http: &str,
    ) -> Result<(Self, Duration)> {
        if let Some(parent) = data.parent() {
            fs::create_dir_all(parent)?;
        }
        let log = File::create(log_file(data))?;
        let start = Instant::now();
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .envs(env.iter().copied())
            .env("KILN_REGISTRIES", format!("{{ plain_http = [{plain_http:?}] }}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // A terminal's signals are for the program that ends this one in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        let stdout = child.stdout.take().context("the daemon has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let time = start.elapsed();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            let log = fs::read_to_string(log_file(data)).unwrap_or_default();
            bail!("the daemon did not get ready: {log}");
        };
        let key = fs::read_to_string(data.join("api-key"))?.trim().to_owned();
        let address = address.parse()?;
        let (program, data) = (program.to_owned(), data.to_owned());
        let kiln = Self { child, program, data, address, key, connection: RefCell::new(None) };
        Ok((kiln, time))
    }

    /// Whether the daemon knows an environment variable as a key of its configuration.
    pub(crate) fn knows(&self, variable: &str) -> Result<bool> {
        let log = fs::read_to_string(log_file(&self.data))?;
        let refused =
            |line: &str| line.contains("no key of the configuration") && line.contains(variable);
        Ok(!log.lines().any(refused))
    }

    /// Process id of the daemon.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection of its own.
    pub(crate) fn connect(&self) -> Result<Connection> {
        Connection::tcp(self.address, &self.key)
    }

    /// `kiln words…` against this daemon's socket.
    pub(crate) fn cli(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KILN_HOST", self.data.join("kiln.sock")).args(words);
        command
    }

    /// Fetches an image.
    pub(crate) fn pull(&self, reference: &str, name: &str) -> Result<Value> {
        let body = json!({"reference": reference, "name": name});
        self.connection()?.request("POST", "/v1/images/pull", Some(&body))?.json()
    }

    /// Makes and starts a sandbox; its id.
    pub(crate) fn create(&self, image: &str) -> Result<String> {
        create(&mut *self.connection()?, &json!({"image": image}))
    }

    /// Makes and starts a sandbox by a driver; its id.
    pub(crate) fn create_by(&self, image: &str, driver: &str) -> Result<String> {
        create(&mut *self.connection()?, &json!({"image": image, "driver": driver}))
    }

    /// Runs a command; its standard output.
    pub(crate) fn exec(&self, sandbox: &str, argv: &[&str]) -> Result<String> {
        exec(&mut *self.connection()?, sandbox, argv)
    }

    /// Removes a sandbox, running or not.
    pub(crate) fn remove(&self, sandbox: &str) -> Result<()> {
        let path = format!("/v1/sandboxes/{sandbox}?force=true");
        self.connection()?.request("DELETE", &path, None)?.success()
    }

    /// Removes an image; the bytes that were freed.
    pub(crate) fn remove_image(&self, name: &str) -> Result<u64> {
        let path = format!("/v1/images/{name}");
        let removed = self.connection()?.request("DELETE", &path, None)?.json()?;
        removed["bytes_freed"].as_u64().context("no count of bytes")
    }

    /// How many layers an image has.
    pub(crate) fn image_layers(&self, name: &str) -> Result<usize> {
        let image =
            self.connection()?.request("GET", &format!("/v1/images/{name}"), None)?.json()?;
        image["layers"].as_array().map(Vec::len).context("no layers")
    }

    /// Saves a sandbox's disk; the size of the layer.
    pub(crate) fn snapshot(&self, sandbox: &str, name: &str) -> Result<u64> {
        let body = json!({"sandbox": sandbox, "name": name});
        let made = self.connection()?.request("POST", "/v1/snapshots", Some(&body))?.json()?;
        made["layer_size"].as_u64().context("no size of the layer")
    }

    /// Removes a snapshot.
    pub(crate) fn remove_snapshot(&self, name: &str) -> Result<()> {
        self.connection()?.request("DELETE", &format!("/v1/snapshots/{name}"), None)?.success()
    }

    /// Builds, follows the log to its end, and answers how the build ended.
    pub(crate) fn build(&self, definition: &Value, name: &str, no_cache: bool) -> Result<Value> {
        let mut connection = self.connection()?;
        let source = json!({"definition": definition});
        let body = json!({"source": source, "name": name, "no_cache": no_cache});
        let build = connection.request("POST", "/v1/builds", Some(&body))?.json()?;
        let path = format!("/v1/builds/{}", text(&build, "id")?);
        connection.request("GET", &format!("{path}/log"), None)?.success()?;
        let build = connection.request("GET", &path, None)?.json()?;
        ensure!(build["status"] == "succeeded", "the build did not succeed: {build}");
        Ok(build)
    }

    /// All sandboxes, at most 1000.
    pub(crate) fn sandboxes(&self) -> Result<Vec<String>> {
        let page = self.connection()?.request("GET", "/v1/sandboxes?limit=1000", None)?.json()?;
        let items = page["items"].as_array().context("no list")?;
        items.iter().map(|item| text(item, "id")).collect()
    }

    /// Ends the daemon in order. Sandboxes stay as they are.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.connection.replace(None);
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("could not signal the daemon")?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the daemon does not end")
    }

    /// The connection that requests without one of their own share.
    fn connection(&self) -> Result<RefMut<'_, Connection>> {
        let mut slot = self.connection.borrow_mut();
        if slot.is_none() {
            *slot = Some(self.connect()?);
        }
        Ok(RefMut::map(slot, |slot| slot.as_mut().expect("it was just made")))
    }

    fn remove_all(&self) -> Result<()> {
        // An answer that was not read to its end would be taken for the next one's.
        self.connection.replace(None);
        loop {
            let sandboxes = self.sandboxes()?;
            if sandboxes.is_empty() {
                return Ok(());
            }
            sandboxes.iter().try_for_each(|sandbox| self.remove(sandbox))?;
        }
    }
}

impl Drop for Kiln {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Err(error) = self.remove_all().and_then(|()| self.end()) {
            eprintln!("bench: {}: {error:#}", self.data.display());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Makes and starts a sandbox; its id.
pub(crate) fn create(connection: &mut Connection, body: &Value) -> Result<String> {
    interrupt::check()?;
    text(&connection.request("POST", "/v1/sandboxes", Some(body))?.json()?, "id")
}

/// Runs a command; its standard output.
pub(crate) fn exec(connection: &mut Connection, sandbox: &str, argv: &[&str]) -> Result<String> {
    let path = format!("/v1/sandboxes/{sandbox}/exec");
    let done = connection.request("POST", &path, Some(&json!({"argv": argv})))?.json()?;
    ensure!(done["exit_code"] == 0, "{argv:?} failed: {done}");
    text(&done, "stdout")
}

fn text(value: &Value, field: &str) -> Result<String> {
    let text = value[field].as_str().with_context(|| format!("no `{field}` in {value}"))?;
    Ok(text.to_owned())
}

fn log_file(data: &Path) -> PathBuf {
    data.with_extension("log")
}
