//! What all sandboxes of one daemon share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_types::SandboxId;

use super::NativeConfig;
use super::ca_bundle::CaBundle;
use super::files::StateDir;
use super::slots::SlotTable;
use crate::cgroup::Hierarchy;
use crate::launcher::Launcher;
use crate::network::Network;
use crate::runtime::{BoxError, RuntimeError, Slots};

/// The shared parts.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) config: NativeConfig,
    pub(super) launcher: Launcher,
    pub(super) slots: Arc<dyn Slots>,
    pub(super) network: Network,
    pub(super) hierarchy: Hierarchy,
    /// The control group that the groups of sandboxes are in.
    pub(super) group_parent: String,
    pub(super) state: StateDir,
    pub(super) ca_bundle: Option<CaBundle>,
    /// Names the control groups of this life of the daemon, so that none of an earlier one is met.
    run: String,
    next_group: AtomicU64,
    pub(super) used: SlotTable,
}

impl Host {
    pub(super) async fn set_up(
        config: NativeConfig,
        launcher: Launcher,
        slots: Arc<dyn Slots>,
    ) -> Result<Self, RuntimeError> {
        let network =
            Network::setup(&config.block).await.map_err(setup("set the sandbox network up"))?;
        let state = StateDir::open(&config.state_dir)?;
        let mountinfo = read("/proc/self/mountinfo".as_ref())?;
        let hierarchy = Hierarchy::detect(&config.cgroup_root, &mountinfo)
            .map_err(setup("use this host's control groups"))?;
        Ok(Self {
            group_parent: config.block.cgroup_parent(),
            ca_bundle: config.ca_bundle.clone().map(CaBundle::new),
            config,
            launcher,
            slots,
            network,
            hierarchy,
            state,
            run: format!("r{}", run_number()?),
            next_group: AtomicU64::new(0),
            used: SlotTable::default(),
        })
    }

    /// A name for a control group that was never used before.
    pub(super) fn group_name(&self) -> String {
        format!("{}-{}", self.run, self.next_group.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether this daemon made the group in its present life.
    pub(super) fn is_own_group(&self, name: &str) -> bool {
        name.strip_prefix(&self.run).is_some_and(|rest| rest.starts_with('-'))
    }
}

/// Runs what may block on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    finished(tokio::task::spawn_blocking(work)).await
}

/// Runs `work` to its end even if the caller does not wait for it.
pub(super) async fn complete<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    finished(tokio::spawn(work)).await
}

async fn finished<T>(task: tokio::task::JoinHandle<T>) -> T {
    match task.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The event loop is being taken down, and this task with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// For `map_err`: a step of the host's set-up.
pub(super) fn setup<E: Into<BoxError>>(step: &'static str) -> impl FnOnce(E) -> RuntimeError {
    move |source| RuntimeError::Setup { step, source: source.into() }
}

/// For `map_err`: a step with a sandbox's network.
pub(super) fn network<E: Into<BoxError>>(
    id: SandboxId,
    step: &'static str,
) -> impl FnOnce(E) -> RuntimeError {
    move |source| RuntimeError::Network { id, step: step.to_owned(), source: source.into() }
}

pub(super) fn read(path: &Path) -> Result<String, RuntimeError> {
    std::fs::read_to_string(path).map_err(|source| RuntimeError::State {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

fn run_number() -> Result<String, RuntimeError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(
        |error| RuntimeError::Setup {
            step: "draw a random number",
            source: Box::new(std::io::Error::from(error)),
        },
    )?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}
