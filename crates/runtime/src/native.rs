//! The native driver: sandboxes out of namespaces, control groups and a seccomp filter.
//!
//! A sandbox is made in two stages. What takes time and does not depend on the sandbox (namespaces,
//! control group, network) is prepared ahead and kept in a pool; what is left is a few mounts, one fork
//! and one exec. No sandbox depends on the daemon's life: its directory has all that a later daemon
//! needs to find it again.

mod adopt;
mod ca_bundle;
mod engine;
mod files;
mod host;
mod pool;
mod prepared;
mod process;
mod sandbox;
mod slots;
mod start;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_types::SandboxId;

use self::engine::Namespaces;
use self::host::{Host, complete};
use self::pool::Pool;
use self::prepared::{KILL_DEADLINE, cgroup, prepare};
use self::sandbox::{Live, Phase, Table};
use crate::host::HostBlock;
use crate::launcher::Launcher;
use crate::runtime::{RootSource, Running, Runtime, RuntimeError, SandboxSpec, Slots};

/// The environment variables that name a CA bundle to programs, for [`CA_BUNDLE`].
///
/// OpenSSL (and what is built on it), curl, Python's requests, pip, Node.js and git. apt is not affected:
/// it reads only its own configuration. Each *replaces* the bundle of the image, but Node's, which adds.
pub const CA_ENV: [&str; 6] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
];

/// Where a sandbox finds the host's CA bundle, if one is configured.
pub const CA_BUNDLE: &str = crate::launcher::CA_BUNDLE;

pub(crate) use self::engine::{Engine, Ready};
pub(crate) use self::host::blocking;
pub(crate) use self::prepared::{cgroup as cgroup_error, launcher as launcher_error};
pub(crate) use self::process::has_ended;

/// The driver's name.
pub(crate) const NAME: &str = "native";

/// How long freezing and thawing may take.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);
/// What an orderly end may take beyond the grace that it is given.
const SHUTDOWN_EXTRA: Duration = Duration::from_secs(5);

/// How the driver is set up.
#[derive(Clone, Debug)]
pub struct NativeConfig {
    /// A directory of the driver's own.
    pub state_dir: PathBuf,
    /// The share of the host's ids and addresses.
    pub block: HostBlock,
    /// How many sandboxes to keep prepared.
    pub pool: usize,
    /// The CA bundle to show to sandboxes.
    pub ca_bundle: Option<PathBuf>,
    /// Where control groups are mounted: `/sys/fs/cgroup`.
    pub cgroup_root: PathBuf,
    /// Whether no program in a sandbox may gain privileges. It breaks `sudo` and `ping`.
    pub no_new_privs: bool,
}

impl NativeConfig {
    /// The defaults: two prepared sandboxes, no CA bundle.
    pub fn new(state_dir: PathBuf, block: HostBlock) -> Self {
        Self {
            state_dir,
            block,
            pool: 2,
            ca_bundle: None,
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            no_new_privs: false,
        }
    }
}

/// The driver.
#[derive(Debug)]
pub struct NativeRuntime {
    parts: Parts,
}

/// What each operation works with. Drivers that differ in nothing but their engine share the rest: a slot,
/// a control group and a link are the same thing for all of them, and one sweep finds what any has left.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    host: Arc<Host>,
    table: Table,
    pool: Arc<Pool>,
    engine: Arc<dyn Engine>,
}

impl NativeRuntime {
    /// Sets the host up and starts to fill the pool. `launcher` was started before there were threads.
    pub async fn new(
        config: NativeConfig,
        launcher: Launcher,
        slots: Arc<dyn Slots>,
    ) -> Result<Arc<Self>, RuntimeError> {
        let size = config.pool;
        let host = Arc::new(Host::set_up(config, launcher, slots).await?);
        let pool = Arc::new(Pool::start(&host, size));
        let parts = Parts { host, table: Table::default(), pool, engine: Arc::new(Namespaces) };
        Ok(Arc::new(Self { parts }))
    }

    /// A directory that everybody can look up and in which nothing is, for runtimes to mount on.
    pub(crate) fn mount_point(&self) -> Result<PathBuf, RuntimeError> {
        let path = self.parts.host.config.block.mount_point();
        let failed = |source| RuntimeError::State {
            action: "make a directory for all to look up at",
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(&path).map_err(failed)?;
        for path in path.ancestors().take(2) {
            // Whatever the daemon's umask is.
            let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
            let passable = std::fs::Permissions::from_mode(mode | 0o111);
            std::fs::set_permissions(path, passable).map_err(failed)?;
        }
        Ok(path)
    }

    /// The same host, and the same sandboxes, with another way to start them.
    pub(crate) fn with_engine(&self, engine: Arc<dyn Engine>) -> Parts {
        Parts { engine, ..self.parts.clone() }
    }

    /// Gives back what was prepared. Sandboxes run on. Call this before the daemon ends; without it
    /// the next [`Runtime::sweep`] does that work, but the slots stay reserved.
    pub async fn shutdown(&self) {
        self.parts.pool.drain(&self.parts.host).await;
        self.parts.host.used.settle().await;
    }

    /// Removes everything that the driver has set up on this host, running sandboxes included. For
    /// the removal of a daemon, not for its stop.
    pub async fn teardown(&self) -> Result<(), RuntimeError> {
        self.shutdown().await;
        let host = &self.parts.host;
        for id in host.state.list()? {
            self.stop(id, Duration::ZERO).await?;
        }
        self.sweep(&[]).await?;
        host.used.settle().await;
        host.network.teardown().await.map_err(host::setup("remove the sandbox network"))?;
        let host = Arc::clone(host);
        blocking(move || host.hierarchy.remove_parent(&host.group_parent))
            .await
            .map_err(host::setup("remove the sandboxes' control group"))
    }

    /// How many sandboxes are prepared at the moment.
    pub fn prepared(&self) -> usize {
        self.parts.pool.len()
    }

    /// The memory that a running sandbox uses, page cache included, in bytes.
    pub async fn memory_usage(&self, id: SandboxId) -> Result<u64, RuntimeError> {
        let live = self.parts.live(id).await?;
        let used = blocking(move || live.group.memory_usage()).await;
        used.map_err(cgroup("measure", &id.to_string()))
    }
}

#[async_trait]
impl Runtime for NativeRuntime {
    fn name(&self) -> &str {
        self.parts.name()
    }

    async fn create(
        &self,
        spec: SandboxSpec,
        root: Box<dyn RootSource>,
    ) -> Result<Running, RuntimeError> {
        self.parts.create(spec, root).await
    }

    async fn adopt(&self, spec: SandboxSpec) -> Result<Option<Running>, RuntimeError> {
        self.parts.adopt(spec).await
    }

    async fn stop(&self, id: SandboxId, grace: Duration) -> Result<(), RuntimeError> {
        self.parts.stop(id, grace).await
    }

    async fn freeze(&self, id: SandboxId) -> Result<(), RuntimeError> {
        self.parts.freeze(id).await
    }

    async fn thaw(&self, id: SandboxId) -> Result<(), RuntimeError> {
        self.parts.thaw(id).await
    }

    async fn sweep(&self, alive: &[SandboxId]) -> Result<(), RuntimeError> {
        self.parts.sweep(alive).await
    }
}

#[async_trait]
impl Runtime for Parts {
    fn name(&self) -> &str {
        self.engine.name()
    }

    async fn create(
        &self,
        spec: SandboxSpec,
        root: Box<dyn RootSource>,
    ) -> Result<Running, RuntimeError> {
        // Tasks of their own, here and below: a caller that goes away must not leave half a sandbox.
        complete(self.clone().create_now(spec, root)).await
    }

    async fn adopt(&self, spec: SandboxSpec) -> Result<Option<Running>, RuntimeError> {
        complete(self.clone().adopt_now(spec)).await
    }

    async fn stop(&self, id: SandboxId, grace: Duration) -> Result<(), RuntimeError> {
        complete(self.clone().stop_now(id, grace)).await
    }

    async fn freeze(&self, id: SandboxId) -> Result<(), RuntimeError> {
        let group = self.live(id).await?.group;
        let frozen = blocking(move || group.freeze(FREEZE_DEADLINE)).await;
        frozen.map_err(cgroup("freeze", &id.to_string()))
    }

    async fn thaw(&self, id: SandboxId) -> Result<(), RuntimeError> {
        let group = self.live(id).await?.group;
        let thawed = blocking(move || group.thaw(FREEZE_DEADLINE)).await;
        thawed.map_err(cgroup("thaw", &id.to_string()))
    }

    async fn sweep(&self, alive: &[SandboxId]) -> Result<(), RuntimeError> {
        let (parts, alive) = (self.clone(), alive.to_vec());
        complete(async move { adopt::sweep(&parts.host, &parts.table, &alive).await }).await
    }
}

impl Parts {
    async fn live(&self, id: SandboxId) -> Result<Live, RuntimeError> {
        self.table.live(id).await.ok_or(RuntimeError::NotRunning { id })
    }

    async fn create_now(
        self,
        spec: SandboxSpec,
        root: Box<dyn RootSource>,
    ) -> Result<Running, RuntimeError> {
        start::check(&spec)?;
        let id = spec.id;
        let entry = self.table.entry(id);
        let result = async {
            let mut phase = entry.phase.lock().await;
            if let Phase::Live(_) = *phase {
                return Err(RuntimeError::Busy { id, what: "it runs".to_owned() });
            }
            // Before a prepared process is chosen: it has to be one of the launcher that keeps the copy,
            // and to ask for that is what shows that a launcher is dead.
            let host = Arc::clone(&self.host);
            blocking(move || match &host.ca_bundle {
                Some(bundle) => bundle.copy(id, &host.launcher, None).map(drop),
                None => Ok(()),
            })
            .await?;
            let ready = match spec.slot {
                None if spec.network => self.pool.take(&self.host).await,
                _ => None,
            };
            let prepared = match ready {
                Some(prepared) => prepared,
                None => prepare(&self.host, id, spec.slot, spec.network).await?,
            };
            let live =
                start::start(&self.host, &self.table, &self.engine, spec, root, prepared).await?;
            let running = live.running.clone();
            *phase = Phase::Live(live);
            Ok(running)
        }
        .await;
        self.table.put(id, entry);
        self.pool.refill();
        result
    }

    async fn adopt_now(self, spec: SandboxSpec) -> Result<Option<Running>, RuntimeError> {
        let id = spec.id;
        let entry = self.table.entry(id);
        let result = async {
            let mut phase = entry.phase.lock().await;
            if let Phase::Live(live) = &mut *phase {
                adopt::relink(&self.host, id, live).await?;
                return Ok(Some(live.running.clone()));
            }
            let Some(live) = adopt::adopt(&self.host, &self.table, &spec).await? else {
                return Ok(None);
            };
            let running = live.running.clone();
            *phase = Phase::Live(live);
            Ok(Some(running))
        }
        .await;
        self.table.put(id, entry);
        result
    }

    async fn stop_now(self, id: SandboxId, grace: Duration) -> Result<(), RuntimeError> {
        let entry = self.table.entry(id);
        let result = async {
            let mut phase = entry.phase.lock().await;
            match &mut *phase {
                Phase::Live(live) => {
                    // Without a link nobody can be asked to end in order; what runs is then killed.
                    let _ = adopt::relink(&self.host, id, live).await;
                    Ok(Some(live.clone()))
                }
                Phase::Absent => adopt::remove_stale(&self.host, id).await.map(|()| None),
            }
        }
        .await;
        self.table.put(id, entry);
        match result? {
            Some(live) => end(id, live, grace).await,
            None => Ok(()),
        }
    }
}

/// Ends a running sandbox. Its watcher cleans up; this waits for that.
async fn end(id: SandboxId, live: Live, grace: Duration) -> Result<(), RuntimeError> {
    let Live { running: Running { agent, mut exit, .. }, group } = live;
    let name = id.to_string();
    let thawed = Arc::clone(&group);
    if let Err(error) = blocking(move || thawed.thaw(FREEZE_DEADLINE)).await {
        // It may have ended just now, and its group with it. Else it is killed, frozen or not.
        let error: &dyn std::error::Error = &error;
        tracing::debug!(sandbox = %id, error, "it cannot be thawed");
    }
    if !grace.is_zero() {
        let orderly = async {
            if let Err(error) = agent.shutdown(grace).await {
                tracing::debug!(sandbox = %id, error = &error as &dyn std::error::Error, "killing it");
                return;
            }
            // An error means that the end was announced and the watcher is gone: as good.
            drop(exit.wait_for(Option::is_some).await);
        };
        if tokio::time::timeout(grace + SHUTDOWN_EXTRA, orderly).await.is_err() {
            tracing::debug!(sandbox = %id, "it does not end, killing it");
        }
    }
    if exit.borrow().is_none() {
        blocking(move || group.kill()).await.map_err(cgroup("kill", &name))?;
        kiln_failpoint::pass("sandbox.killed");
    }
    let after = KILL_DEADLINE + FREEZE_DEADLINE;
    match tokio::time::timeout(after, exit.wait_for(Option::is_some)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(RuntimeError::Unkillable { id, after }),
    }
}
