//! runc, crun and runsc on a bundle that is unpacked already.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::program;
use crate::spawner::Spawner;

/// The base image, unpacked by umoci, and configurations that run something in it.
#[derive(Debug)]
pub(crate) struct Bundle {
    directory: PathBuf,
}

impl Bundle {
    /// Unpacks the image of a layout.
    pub(crate) fn unpack(layout: &Path, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let image = format!("{}:base", layout.display());
        let unpacked = directory.join("unpacked");
        program::succeed(Command::new("umoci").args(["unpack", "--image", &image]).arg(&unpacked))?;
        let rootfs = unpacked.join("rootfs");
        for (name, argv) in [("true", &["true"][..]), ("sleep", &["sleep", "infinity"])] {
            configure(&directory.join(name), &rootfs, argv)?;
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// The directory with the configuration that runs `true` or `sleep`.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Writes `config.json` for a command on a root file system, as `runc spec` would have it.
pub(crate) fn configure(directory: &Path, rootfs: &Path, argv: &[&str]) -> Result<()> {
    fs::create_dir_all(directory)?;
    let file = directory.join("config.json");
    program::succeed(Command::new("runc").arg("spec").arg("--bundle").arg(directory))?;
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(argv);
    config["root"] = json!({"path": rootfs, "readonly": false});
    fs::write(&file, config.to_string())
        .with_context(|| format!("could not write {}", file.display()))
}

/// One of the runtimes. Dropping it removes the containers that it still has.
#[derive(Debug)]
pub(crate) struct OciRuntime {
    /// What it is called in the table.
    pub title: &'static str,
    /// Where it keeps its containers.
    state: PathBuf,
    words: Vec<String>,
    spawner: Option<RefCell<Spawner>>,
    next: Cell<u32>,
    running: RefCell<Vec<String>>,
}

impl OciRuntime {
    /// runc.
    pub(crate) fn runc(state: &Path) -> Self {
        Self::new("runc", &["runc"], state, None)
    }

    /// crun, where the v2 control groups are hidden from it.
    pub(crate) fn crun(state: &Path) -> Result<Self> {
        let spawner = Spawner::start()?;
        Ok(Self::new("crun", &["crun"], state, Some(spawner)))
    }

    /// runsc with systrap, which needs no KVM.
    pub(crate) fn runsc(state: &Path) -> Self {
        let words = ["runsc", "--platform=systrap", "--network=none"];
        Self::new("runsc", &words, state, None)
    }

    fn new(title: &'static str, words: &[&str], state: &Path, spawner: Option<Spawner>) -> Self {
        let root = ["--root".to_owned(), state.display().to_string()];
        Self {
            title,
            state: state.to_owned(),
            words: words.iter().map(|&word| word.to_owned()).chain(root).collect(),
            spawner: spawner.map(RefCell::new),
            next: Cell::new(0),
            running: RefCell::default(),
        }
    }

    /// Runs a bundle's command to its end.
    pub(crate) fn run(&self, bundle: &Bundle) -> Result<Duration> {
        self.run_at(&bundle.path("true"))
    }

    /// Runs the command of the bundle in a directory to its end.
    pub(crate) fn run_at(&self, bundle: &Path) -> Result<Duration> {
        let bundle = bundle.display().to_string();
        self.succeed(&["run", "--bundle", &bundle, &self.new_id()])
    }

    /// Starts a container that sleeps; its id.
    pub(crate) fn start(&self, bundle: &Bundle) -> Result<(String, Duration)> {
        let (id, words) = self.start_words(bundle);
        let time = self.succeed(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok((id, time))
    }

    /// A container that is to be removed at the end, and the words that start it.
    pub(crate) fn start_words(&self, bundle: &Bundle) -> (String, Vec<String>) {
        let id = self.new_id();
        self.running.borrow_mut().push(id.clone());
        let bundle = bundle.path("sleep").display().to_string();
        let words = ["run", "--detach", "--bundle", &bundle, &id];
        (id.clone(), words.iter().map(|&word| word.to_owned()).collect())
    }

    /// Runs `true` in a container.
    pub(crate) fn exec(&self, id: &str) -> Result<Duration> {
        self.succeed(&["exec", id, "true"])
    }

    /// What the runtime knows about a container.
    pub(crate) fn state(&self, id: &str) -> Result<Value> {
        let words = ["state".to_owned(), id.to_owned()];
        let done = program::succeed(&mut self.command(&words))?;
        serde_json::from_str(&done.stdout).context("the state is not JSON")
    }

    /// Kills and removes a container.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        self.running.borrow_mut().retain(|running| running != id);
        self.succeed(&["delete", "--force", id]).map(drop)
    }

    /// Kills and removes all containers in the runtime's directory, which a run that was killed has left.
    pub(crate) fn remove_left(&self) -> Result<()> {
        if !self.state.is_dir() {
            return Ok(());
        }
        let words = ["list", "--quiet"].map(str::to_owned);
        let listed = program::succeed(&mut self.command(&words))?;
        listed.stdout.lines().try_for_each(|id| self.remove(id.trim()))
    }

    /// The command with words of the runtime.
    pub(crate) fn command(&self, words: &[String]) -> Command {
        let mut command = program::command(&self.words);
        command.args(words);
        command
    }

    fn new_id(&self) -> String {
        let number = self.next.get();
        self.next.set(number + 1);
        format!("kiln-bench-{}-{}-{number}", self.title, std::process::id())
    }

    fn succeed(&self, words: &[&str]) -> Result<Duration> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        match &self.spawner {
            Some(spawner) => {
                let all: Vec<String> = self.words.iter().chain(&words).cloned().collect();
                spawner.borrow_mut().succeed(&all)
            }
            None => Ok(program::succeed(&mut self.command(&words))?.time),
        }
    }
}

impl Drop for OciRuntime {
    fn drop(&mut self) {
        for id in self.running.take() {
            if let Err(error) = self.remove(&id) {
                eprintln!("bench: {error:#}");
            }
        }
    }
}
