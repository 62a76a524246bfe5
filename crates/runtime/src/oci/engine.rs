//! Starting a sandbox by a runtime.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_types::SandboxId;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::bundle::{Bundle, SOCKET};
use super::program::{self, Said};
use super::{OciConfig, probe};
use crate::cgroup::{self, Group, Hierarchy};
use crate::launcher::{AGENT, Assembled, Launched};
use crate::native::{Engine, Ready, cgroup_error, has_ended, launcher_error};
use crate::runtime::{BoxError, Limits, RuntimeError};
use crate::sys::Surroundings;

/// How long a runtime may take to start a sandbox.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long the process that put the root together may take to be gone from the group.
const EMPTY_DEADLINE: Duration = Duration::from_secs(10);
/// How long an agent may take to make its socket.
const LISTEN_DEADLINE: Duration = Duration::from_secs(15);
/// The longest path of a socket (`sun_path` without its end).
const ADDRESS_MAX: usize = 107;
/// The name of each sandbox, for its runtime: each has a runtime root of its own, in which it is alone,
/// and the address of a socket in there has to stay short.
const CONTAINER: &str = "box";

/// A runtime as configured.
#[derive(Debug)]
pub(super) struct OciEngine {
    pub(super) config: OciConfig,
    /// A directory that everybody can look up. Each start attaches its root here, in a mount namespace of
    /// its own: no user of a sandbox's ids could look up a place in the daemon's directory.
    pub(super) mount_point: PathBuf,
}

/// The parts of a sandbox's directory that are the runtime's.
struct Paths {
    bundle: PathBuf,
    root: PathBuf,
    log: PathBuf,
    pid: PathBuf,
    link: PathBuf,
}

impl Engine for OciEngine {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn starting_limits(&self, limits: &Limits) -> Limits {
        self.config.flavour.starting_limits(limits)
    }

    fn running_limits(&self, limits: &Limits) -> Limits {
        self.config.flavour.running_limits(limits)
    }

    fn launch(&self, ready: Ready<'_>) -> Result<Launched, RuntimeError> {
        let id = ready.id;
        let paths = Paths::make(&ready.dir)?;
        self.check_length(&paths).map_err(|source| RuntimeError::State {
            action: "use the directory",
            path: paths.root.clone(),
            source,
        })?;
        let link = self.make_link(&paths, ready.id_base)?;
        let link = link.as_ref().map(AsFd::as_fd);
        let userns = descriptor(ready.parked.userns.as_raw_fd());
        let netns = descriptor(ready.parked.netns.as_raw_fd());
        let bundle = Bundle {
            flavour: self.config.flavour,
            launch: &ready.launch,
            limits: &ready.limits,
            root: &self.mount_point,
            userns: &userns,
            netns: &netns,
            group: &ready.group_path,
            id_base: ready.id_base,
            has_tmp: has_directory(&ready.root, "tmp"),
        };
        let config = paths.bundle.join("config.json");
        write(&config, bundle.config().to_string().as_bytes())?;
        let sys = !self.config.flavour.own_kernel();
        let Ready { parked, group, group_path, hierarchy, root, listener, launch, dir, .. } = ready;
        let assembled = parked.assemble(launch, root.as_fd(), sys, link);
        let Assembled { tree, skipped } =
            assembled.map_err(launcher_error(id, "put a root together"))?;
        drop(root);
        if skipped.iter().any(|path| path == AGENT) {
            return Err(RuntimeError::Start {
                id,
                step: format!("show the agent at {AGENT}"),
                source: io::Error::other("the image has no place for it"),
            });
        }
        // Runtimes refuse a group in which something runs.
        let empty = group.wait_empty(EMPTY_DEADLINE);
        empty.map_err(cgroup_error("empty", &group_path))?;
        let surroundings = Surroundings {
            groups: groups(group)?,
            hidden: self.hidden(hierarchy),
            covered: self.config.flavour.covered().iter().map(|path| (*path).to_owned()).collect(),
            mount: Some((tree, c_path(&self.mount_point)?)),
            third: self.config.flavour.hands_sockets_over().then_some(listener),
        };
        let mut command = self.command(&paths);
        command.arg("run").arg("--bundle").arg(&paths.bundle).arg("--pid-file").arg(&paths.pid);
        command.arg("--detach");
        if self.config.flavour.hands_sockets_over() {
            command.args(["--preserve-fds", "1"]);
        }
        command.arg(CONTAINER);
        let ran = program::run_unheard(command, surroundings, START_DEADLINE, &paths.log);
        ran.map_err(|error| {
            self.failed(id, "start the sandbox", error.in_room_of(&paths.bundle).into())
        })?;
        let launched = self.find(id, &paths, skipped)?;
        if !self.config.flavour.hands_sockets_over() {
            take_socket(&launched, &paths, &dir)
                .map_err(|source| self.failed(id, "start the agent", source))?;
        }
        Ok(launched)
    }
}

impl OciEngine {
    /// Looked for each time: it may be replaced, or installed, while the daemon runs.
    fn program(&self) -> PathBuf {
        probe::find(&self.config.path).unwrap_or_else(|| self.config.path.clone())
    }

    /// A call of the runtime.
    fn command(&self, paths: &Paths) -> Command {
        let mut command = Command::new(self.program());
        command.args(self.config.flavour.global_arguments(&paths.root, &paths.log));
        command.args(&self.config.args).current_dir("/");
        command
    }

    /// Where its own socket does not fit into an address, gVisor makes it in a place that is everybody's.
    fn check_length(&self, paths: &Paths) -> io::Result<()> {
        let length = paths.root.as_os_str().len() + "/runsc-.sock".len() + CONTAINER.len();
        if self.config.flavour.own_kernel() && length > ADDRESS_MAX {
            let problem = format!(
                "a socket in it has an address of {length} bytes, {ADDRESS_MAX} are possible: \
                 choose a shorter `data_dir`"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, problem));
        }
        Ok(())
    }

    /// The directory in which the agent makes its socket, as a mount source.
    fn make_link(&self, paths: &Paths, id_base: u32) -> Result<Option<OwnedFd>, RuntimeError> {
        if self.config.flavour.hands_sockets_over() {
            return Ok(None);
        }
        let link = &paths.link;
        directory(link)?;
        std::os::unix::fs::chown(link, Some(id_base), Some(id_base))
            .map_err(state("give to the sandbox", link))?;
        // Only a process of the same mount namespace can make a mount of it.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(CWD, link, flags);
        mount.map(Some).map_err(|error| state("make a mount of", link)(error.into()))
    }

    /// Mounts that the runtime is not to see.
    fn hidden(&self, hierarchy: &Hierarchy) -> Vec<CString> {
        let refused =
            self.config.flavour.refuses_hybrid_groups() && hierarchy.mode() == cgroup::Mode::Hybrid;
        let path = hierarchy.v2_root().filter(|_| refused);
        path.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok()).into_iter().collect()
    }

    /// The first process of the sandbox, or what stands for it on the host.
    fn find(
        &self,
        id: SandboxId,
        paths: &Paths,
        skipped: Vec<String>,
    ) -> Result<Launched, RuntimeError> {
        let text = fs::read_to_string(&paths.pid).map_err(state("read", &paths.pid))?;
        let found = text.trim().parse().ok().and_then(|number: i32| {
            let process = Pid::from_raw(number)?;
            Some((number as u32, pidfd_open(process, PidfdFlags::NONBLOCK)))
        });
        let gone = |source: io::Error| RuntimeError::Start {
            id,
            step: "find its first process".to_owned(),
            source,
        };
        let (pid, pidfd) = found.ok_or_else(|| {
            let said = format!("{} wrote {:?} for its number", self.config.name, text.trim());
            gone(io::Error::new(io::ErrorKind::InvalidData, said))
        })?;
        let pidfd = pidfd.map_err(|error| gone(error.into()))?;
        Ok(Launched { pid, pidfd, skipped })
    }

    fn failed(&self, id: SandboxId, action: &'static str, source: BoxError) -> RuntimeError {
        RuntimeError::Program { id, program: self.program().display().to_string(), action, source }
    }
}

impl Paths {
    fn make(dir: &Path) -> Result<Self, RuntimeError> {
        let bundle = dir.join("bundle");
        directory(&bundle)?;
        Ok(Self {
            bundle,
            root: dir.join("runtime"),
            log: dir.join("runtime.log"),
            pid: dir.join("pid"),
            link: dir.join("link"),
        })
    }
}

/// Waits until the agent listens, and takes its socket and their common directory away from it: only
/// the agent has run in the sandbox so far, and what runs later can neither replace the one nor write
/// to the other.
fn take_socket(launched: &Launched, paths: &Paths, dir: &Path) -> Result<(), BoxError> {
    let link = &paths.link;
    let opened = fs::File::open(link)?;
    // A path of any length fits into a socket's address this way.
    let short = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    let end = Instant::now() + LISTEN_DEADLINE;
    // A socket that is there is not yet one that listens, and until then its name is still needed.
    while UnixStream::connect(&short).is_err() {
        if has_ended(&launched.pidfd) {
            let said = Said(program::logged(&paths.log));
            return Err(format!("it ended at once{said}").into());
        }
        if Instant::now() > end {
            return Err(format!("it does not listen after {LISTEN_DEADLINE:?}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    std::os::unix::fs::chown(link, Some(0), Some(0))?;
    fs::set_permissions(link, fs::Permissions::from_mode(0o555))?;
    Ok(fs::rename(link.join(SOCKET), dir.join(SOCKET))?)
}

/// The groups that the runtime itself has to be in, for what it starts to be in them. Those with limits it
/// enters by itself, where it was told to.
fn groups(group: &Group) -> Result<Vec<OwnedFd>, RuntimeError> {
    let Some(path) = group.v2_without_limits() else { return Ok(Vec::new()) };
    let path = path.join("cgroup.procs");
    let file = OpenOptions::new().write(true).open(&path).map_err(state("open", &path))?;
    Ok(vec![file.into()])
}

/// Whether a root has a directory of this name, and not a link to one.
fn has_directory(root: &OwnedFd, name: &str) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(root, name, flags, Mode::empty()).is_ok()
}

/// A path under which other programs find a descriptor of this process.
fn descriptor(number: i32) -> String {
    format!("/proc/{}/fd/{number}", std::process::id())
}

fn directory(path: &Path) -> Result<(), RuntimeError> {
    fs::DirBuilder::new().mode(0o700).create(path).map_err(state("make the directory", path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RuntimeError> {
    fs::write(path, bytes).map_err(state("write", path))
}

fn c_path(path: &Path) -> Result<CString, RuntimeError> {
    let nul = |error: std::ffi::NulError| state("pass on", path)(error.into());
    CString::new(path.as_os_str().as_bytes()).map_err(nul)
}

fn state(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |source| RuntimeError::State { action, path, source }
}
