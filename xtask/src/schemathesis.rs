//! `cargo xtask schemathesis`: requests made from the committed OpenAPI document, right and wrong ones,
//! against a real daemon. No answer may be one that the document does not have.
//!
//! The daemon and schemathesis are in a network namespace of their own, where only loopback is: what is
//! made at random names registries, too, and none of them is to be asked.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{packages, process};

/// The version that the findings in `docs/testing.md` are of.
const PACKAGE: &str = "schemathesis==4.32.5";
/// How long the quick form takes, and the long one, in seconds.
const QUICK_SECONDS: u64 = 45;
const LONG_SECONDS: u64 = 600;

const CONFIG: &str = "[catalog]\n\
    debian-12 = [{ registry = { reference = \"127.0.0.1:1/none\" } }]\n\
    [registries]\nattempts = 1\nconnect_timeout_ms = 500\nread_timeout_ms = 1000\n\
    plain_http = [\"127.0.0.1:1\"]\n";

struct Options {
    seconds: u64,
    seed: String,
    kiln: Option<PathBuf>,
}

/// `[--quick] [--seconds N] [--seed N] [--kiln PROGRAM]`
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let mut options = Options { seconds: LONG_SECONDS, seed: "1".to_owned(), kiln: None };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().copied().with_context(|| format!("{word} needs a value"));
        match *word {
            "--quick" => options.seconds = QUICK_SECONDS,
            "--seconds" => options.seconds = value()?.parse().context("--seconds is no number")?,
            "--seed" => value()?.clone_into(&mut options.seed),
            "--kiln" => options.kiln = Some(PathBuf::from(value()?)),
            other => bail!("`{other}` is no option of schemathesis"),
        }
    }
    ensure!(packages::is_root(), "schemathesis needs a daemon, and the daemon needs root");
    packages::install(&["python3-venv", "iproute2", "util-linux", "busybox-static"])?;
    let program = environment()?;
    let kiln = match &options.kiln {
        Some(kiln) => kiln.clone(),
        None => {
            process::run(process::command(
                "cargo",
                &["build", "--quiet", "--locked", "-p", "kiln-cli"],
            ))?;
            crate::root().join("target/debug/kiln")
        }
    };
    let daemon = Daemon::start(&kiln)?;
    let result = daemon.prepare().and_then(|()| test(&daemon, &program, &options));
    let ended = daemon.end();
    result.and(ended)
}

/// Schemathesis in an environment of its own under `target`; gives the program.
fn environment() -> Result<PathBuf> {
    let directory = crate::root().join("target/schemathesis");
    let program = directory.join("bin/schemathesis");
    let mark = directory.join("installed");
    if fs::read_to_string(&mark).is_ok_and(|text| text == PACKAGE) && program.exists() {
        return Ok(program);
    }
    let shown = directory.to_string_lossy().into_owned();
    process::run(process::command("/usr/bin/python3", &["-m", "venv", "--clear", &shown]))?;
    let pip = directory.join("bin/pip").to_string_lossy().into_owned();
    process::run(process::command(&pip, &["install", "--quiet", PACKAGE]))?;
    fs::write(&mark, PACKAGE)?;
    Ok(program)
}

fn test(daemon: &Daemon, program: &Path, options: &Options) -> Result<()> {
    let here = crate::root().join("xtask/src/schemathesis");
    let key = fs::read_to_string(daemon.data().join("api-key"))?;
    let mut command = Command::new("nsenter");
    command
        .args(["--net", "--target", &daemon.child.id().to_string()])
        .arg(program)
        .arg("--config-file")
        .arg(here.join("schemathesis.toml"))
        .arg("run")
        .arg(crate::root().join("docs/openapi.json"))
        .args(["--url", &daemon.url()?, "--seed", &options.seed])
        .args(["--max-time", &options.seconds.to_string(), "--max-examples", "40"])
        .args(["--request-timeout", "30", "--continue-on-failure", "--no-color"])
        .args(["--generation-database", "none", "--warnings", "off"])
        // A WebSocket is not HTTP any more after its first answer; the end-to-end tests speak it.
        .args(["--exclude-operation-id", "exec_stream"])
        .arg("--header")
        .arg(format!("Authorization: Bearer {}", key.trim()))
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", &here)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(daemon.directory())
        .stdin(Stdio::null());
    eprintln!("xtask: schemathesis for {} s, seed {}", options.seconds, options.seed);
    let status = command.status().context("could not start nsenter")?;
    ensure!(status.success(), "schemathesis has findings, see above ({status})");
    Ok(())
}

/// A daemon where no network is.
struct Daemon {
    child: Child,
    kiln: PathBuf,
    directory: PathBuf,
}

impl Daemon {
    fn start(kiln: &Path) -> Result<Self> {
        let directory = crate::root().join("target/tmp/schemathesis");
        let _of_an_earlier_run = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("kiln.toml"), CONFIG)?;
        let log = File::create(directory.join("daemon.log"))?;
        // Each `exec`s the next, so the process id is the daemon's.
        let script = "ip link set lo up && exec \"$0\" serve --listen 127.0.0.1:0 \
            --config kiln.toml --data-dir data";
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .arg(kiln)
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("could not start unshare")?;
        let mut daemon = Self { child, kiln: kiln.to_owned(), directory };
        let deadline = Instant::now() + Duration::from_mins(1);
        while !daemon.data().join("run/address").exists() || daemon.kiln(&["ps"]).is_err() {
            let ended = daemon.child.try_wait()?.is_some();
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(daemon.directory().join("daemon.log"))?;
                bail!("the daemon does not answer:\n{log}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn url(&self) -> Result<String> {
        let address = fs::read_to_string(self.data().join("run/address"))?;
        Ok(format!("http://{}", address.trim()))
    }

    fn kiln(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.kiln)
            .env("KILN_HOST", self.data().join("kiln.sock"))
            .args(arguments)
            .current_dir(&self.directory)
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "kiln {}: {errors}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What requests are to find: an image, sandboxes that run and do not, a snapshot, a build.
    fn prepare(&self) -> Result<()> {
        let bin = self.directory.join("root/bin");
        fs::create_dir_all(&bin)?;
        fs::copy("/bin/busybox", bin.join("busybox"))?;
        for applet in ["sh", "true", "cat", "echo", "sleep"] {
            symlink("busybox", bin.join(applet))?;
        }
        fs::write(self.directory.join("t.json"), r#"{"name": "box", "base_image": "./root"}"#)?;
        for arguments in [
            &["build", "--quiet", "t.json"][..],
            &["create", "box", "--name", "b"],
            &["create", "box", "--name", "off"],
            &["snapshot", "b", "saved"],
            &["stop", "off"],
        ] {
            self.kiln(arguments)?;
        }
        Ok(())
    }

    /// Removes what is there, and ends the daemon, which must go in order.
    fn end(mut self) -> Result<()> {
        let list = self.kiln(&["ps", "--json"]).unwrap_or_default();
        let list: Vec<serde_json::Value> = serde_json::from_str(&list).unwrap_or_default();
        for id in list.iter().filter_map(|sandbox| sandbox["id"].as_str()) {
            self.kiln(&["rm", "--force", id])?;
        }
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the daemon ended with {status}");
        let log = fs::read_to_string(self.directory.join("daemon.log"))?;
        let panics = log.lines().find(|line| line.contains("a handler panicked"));
        ensure!(panics.is_none(), "{panics:?}");
        Ok(())
    }
}
