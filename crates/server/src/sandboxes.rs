//! The sandbox service: what exists, what runs, and every change between the two.
//!
//! The row is the truth about what exists; this module's map is the truth about what runs. A sandbox
//! gets its row when its agent answers, in the one durable write of its creation: what a crash leaves
//! before that is owned by no row and removed at the next start. Removal marks the row first and
//! deletes it last, so that it is finished whatever happens in between.

mod agent_error;
mod create;
mod exec;
mod lifecycle;
mod live;
mod locks;
mod names;
mod process;
mod reconcile;
mod seal;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_build::Builder;
use kiln_images::ImageStore;
use kiln_metadata::{MetadataStore, SandboxRecord};
use kiln_roots::Roots;
use kiln_runtime::Runtime;
use kiln_types::api::{Page, SandboxInfo, SandboxStatus};
use kiln_types::{ErrorCode, SandboxId};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::config::Defaults;
use crate::extract::shorten;
use crate::page::{PageQuery, page};
use crate::problem::ApiError;

pub(crate) use agent_error::agent_error;
pub(crate) use exec::Process;
pub(crate) use live::Live;
pub(crate) use process::ProcessDefaults;
use process::check_env;

/// What the service stands on.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) images: Arc<ImageStore>,
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) builder: Arc<Builder>,
    pub(crate) roots: Arc<Roots>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) defaults: Defaults,
    pub(crate) stop_grace: Duration,
    /// Whether sandboxes are shown the host's CA bundle.
    pub(crate) ca_bundle: bool,
}

/// All sandboxes of this daemon.
#[derive(Debug)]
pub(crate) struct Sandboxes {
    parts: Parts,
    live: Mutex<HashMap<SandboxId, Arc<Live>>>,
    /// Names of sandboxes that are being made and have no row yet.
    names: Mutex<HashSet<String>>,
    /// Sandboxes whose row says `stopped` while they are being started.
    starting: Mutex<HashSet<SandboxId>>,
    /// Sandboxes that are being made: they may have a disk, and have no row.
    making: Mutex<HashSet<SandboxId>>,
    locks: locks::Locks,
    tasks: TaskTracker,
}

impl Sandboxes {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            live: Mutex::default(),
            names: Mutex::default(),
            starting: Mutex::default(),
            making: Mutex::default(),
            locks: locks::Locks::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.live_map().len()
    }

    /// The ids of the sandboxes that run on an image.
    pub(crate) async fn running_on(
        &self,
        image: &kiln_types::Digest,
    ) -> Result<Vec<String>, ApiError> {
        let ids: Vec<SandboxId> = self.live_map().keys().copied().collect();
        let mut running = Vec::new();
        for id in ids {
            let row = self.parts.metadata.get_sandbox(&id).await?;
            running
                .extend(row.filter(|row| row.image_digest == *image).map(|row| row.id.to_string()));
        }
        Ok(running)
    }

    /// The ids of the sandboxes that are being made.
    pub(crate) fn being_made(&self) -> HashSet<String> {
        let making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.iter().map(ToString::to_string).collect()
    }

    /// Waits until no change of a sandbox's state is under way.
    pub(crate) async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits until every agent has got what was sent to it: above all, which commands to kill.
    pub(crate) async fn flush(&self) {
        let live: Vec<_> = self.live_map().values().cloned().collect();
        futures_util::future::join_all(live.iter().map(|live| live.flush())).await;
    }

    /// A row by id or name.
    pub(crate) async fn find(&self, sandbox: &str) -> Result<SandboxRecord, ApiError> {
        let metadata = &self.parts.metadata;
        let record = match sandbox.parse::<SandboxId>() {
            Ok(id) => metadata.get_sandbox(&id).await?,
            Err(_) => metadata.find_sandbox(sandbox).await?,
        };
        record.ok_or_else(|| not_found(sandbox))
    }

    /// What clients see of a sandbox.
    pub(crate) async fn get(&self, sandbox: &str) -> Result<SandboxInfo, ApiError> {
        self.find(sandbox).await.map(|record| self.info(record))
    }

    /// One page of all sandboxes, newest first.
    pub(crate) async fn list(&self, query: &PageQuery) -> Result<Page<SandboxInfo>, ApiError> {
        let (limit, cursor) = (query.limit()?, query.cursor::<SandboxId>()?);
        let rows = self.parts.metadata.list_sandboxes(cursor.as_ref(), limit + 1).await?;
        let rows = page(rows, limit, |row| row.id.to_string());
        let items = rows.items.into_iter().map(|row| self.info(row)).collect();
        Ok(Page { items, next: rows.next })
    }

    /// A running sandbox by id or name.
    pub(crate) async fn running_sandbox(&self, sandbox: &str) -> Result<Arc<Live>, ApiError> {
        // Most requests name a running sandbox by its id: those need no row.
        if let Some(live) = sandbox.parse().ok().and_then(|id| self.live(id)) {
            return Ok(live);
        }
        let record = self.find(sandbox).await?;
        self.live(record.id).ok_or_else(|| not_running(&record))
    }

    fn info(&self, record: SandboxRecord) -> SandboxInfo {
        let starting = record.status == SandboxStatus::Stopped
            && self.starting.lock().unwrap_or_else(PoisonError::into_inner).contains(&record.id);
        SandboxInfo {
            id: record.id,
            name: record.name,
            status: if starting { SandboxStatus::Starting } else { record.status },
            image: record.image,
            image_digest: record.image_digest,
            env: record.env,
            limits: record.limits,
            driver: record.driver,
            address: record.address,
            created_at: record.created_at,
            reason: record.reason.filter(|_| !starting),
        }
    }

    fn live(&self, id: SandboxId) -> Option<Arc<Live>> {
        self.live_map().get(&id).cloned()
    }

    fn live_map(&self) -> std::sync::MutexGuard<'_, HashMap<SandboxId, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a change to its end, even if the client that asked for it goes away.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let task = self.tasks.spawn(change.instrument(tracing::Span::current()));
        match task.await {
            Ok(result) => result,
            Err(error) => Err(ApiError::of(ErrorCode::Internal, &error)),
        }
    }
}

fn not_found(sandbox: &str) -> ApiError {
    ApiError::new(
        ErrorCode::SandboxNotFound,
        format!("no sandbox is called `{}`", shorten(sandbox)),
    )
    .hint("`kiln ps` lists the sandboxes there are")
}

fn not_running(record: &SandboxRecord) -> ApiError {
    let id = record.id;
    let (state, hint) = match record.status {
        SandboxStatus::Removing => {
            ("is being removed", "wait until it is gone, or use another".into())
        }
        SandboxStatus::Starting => ("is being started", "try again in a moment".into()),
        SandboxStatus::Running | SandboxStatus::Stopped => {
            ("is not running", format!("start it with `kiln start {id}`"))
        }
    };
    let why = record.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    ApiError::new(ErrorCode::SandboxNotRunning, format!("sandbox {id} {state}{why}")).hint(hint)
}
