//! podman and buildah, with configuration, images and containers of their own.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::api;
use super::leftovers::Leftovers;
use crate::http::Connection;
use crate::processes;
use crate::program::{self, Done};

/// The network of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// A network namespace with a bridge and NAT, which is what a Kiln sandbox has.
    Bridge,
    /// An empty network namespace.
    None,
}

impl Network {
    /// Its name for podman.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::None => "none",
        }
    }

    /// Its name in the table.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Bridge => "NAT",
            Self::None => "no network",
        }
    }
}

/// A storage root of podman's. Dropping it removes all that is in it.
#[derive(Debug)]
pub(crate) struct Podman {
    directory: PathBuf,
    service: Option<Child>,
    _leftovers: Leftovers,
}

impl Podman {
    /// Writes the configuration, starts the API service, and pulls the base image under the name `base`.
    pub(crate) fn start(directory: &Path, reference: &str) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let leftovers = Leftovers::before(directory)?;
        let at = |name: &str| directory.join(name).display().to_string();
        // Its database has to stay below `graphroot`: what conmon starts at a container's end is not told
        // of another place, and `podman run` would wait 20 s for it.
        fs::write(
            at("containers.conf"),
            format!(
                "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=4096:4096\"]\n\
                 [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n\
                 tmp_dir = {:?}\n\
                 [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = {:?}\n",
                at("tmp"),
                at("networks"),
            ),
        )?;
        fs::write(
            at("storage.conf"),
            format!(
                "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
                at("graph"),
                at("run"),
            ),
        )?;
        fs::write(at("registries.conf"), "unqualified-search-registries = []\n")?;
        let socket = directory.join("podman.sock");
        let service = environment(&mut Command::new("podman"), directory)
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(at("service.log"))?)
            // A terminal's signals are for the program that ends this one in order.
            .process_group(0)
            .spawn()
            .context("could not start podman")?;
        let service = Some(service);
        let podman = Self { directory: directory.to_owned(), service, _leftovers: leftovers };
        podman.wait()?;
        podman.pull(reference)?;
        Ok(podman)
    }

    /// The storage root of a run that was killed: nothing can be done with it but to drop it.
    pub(crate) fn left(directory: &Path) -> Self {
        let leftovers = Leftovers::left(directory);
        Self { directory: directory.to_owned(), service: None, _leftovers: leftovers }
    }

    /// A command with the configuration of this storage root.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        environment(&mut command, &self.directory).args(&words[1..]);
        command
    }

    /// Runs a command to its end; fails when it does.
    pub(crate) fn run(&self, words: &[&str]) -> Result<Done> {
        program::succeed(&mut self.command(words))
    }

    /// Pulls the base image and names it `base`.
    pub(crate) fn pull(&self, reference: &str) -> Result<Done> {
        let done = self.run(&["podman", "pull", "--quiet", "--tls-verify=false", reference])?;
        self.run(&["podman", "tag", reference, "localhost/base"])?;
        Ok(done)
    }

    /// A connection to the API service.
    pub(crate) fn connect(&self) -> Result<Connection> {
        Connection::unix(&self.directory.join("podman.sock"))
    }

    /// Creates and starts a container that sleeps; its id.
    pub(crate) fn create(&self, image: &str, network: Network) -> Result<String> {
        api::create(&mut self.connect()?, image, network)
    }

    /// Runs a command in a container.
    pub(crate) fn exec(&self, container: &str, argv: &[&str]) -> Result<String> {
        api::exec(&mut self.connect()?, || self.connect(), container, argv)
    }

    /// Kills and removes a container.
    pub(crate) fn remove(&self, container: &str) -> Result<()> {
        api::remove(&mut self.connect()?, container)
    }

    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Ok(mut connection) = self.connect()
                && connection.request("GET", "/v4.0.0/libpod/_ping", None).is_ok()
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("podman's service does not answer")
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let removed = self.run(&["podman", "rm", "--all", "--force", "--time=0"]);
        if let Err(error) = removed {
            eprintln!("bench: {error:#}");
        }
        if let Some(service) = &mut self.service {
            let _ = service.kill();
            let _ = service.wait();
        }
        // A monitor waits for minutes after the end of an exec, in case somebody asks how that was.
        let own = format!("{}/", self.directory.display());
        let _ = processes::end(&own, |program| program == "conmon");
        // The storage driver may have left its own directory mounted on itself.
        let graph = self.directory.join("graph/overlay");
        let _ = program::run(Command::new("umount").arg("-l").arg(graph));
    }
}

/// The variables that make podman and buildah leave the host's configuration alone.
fn environment<'a>(command: &'a mut Command, directory: &Path) -> &'a mut Command {
    command
        .env("CONTAINERS_CONF", directory.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", directory.join("storage.conf"))
        .env("CONTAINERS_REGISTRIES_CONF", directory.join("registries.conf"))
        .env("TMPDIR", directory)
}
