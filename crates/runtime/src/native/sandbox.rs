//! A sandbox that runs, and the task that waits for its end.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_types::SandboxId;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::host::{Host, blocking};
use super::prepared::{Place, clean_up};
use crate::agent::Agent;
use crate::cgroup::Group;
use crate::runtime::{Exit, Running, RuntimeError};
use crate::sys;

/// All sandboxes of this daemon, those that are being started included.
pub(super) type Table = Arc<Sandboxes>;

/// See [`Table`].
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    entries: Mutex<HashMap<SandboxId, Arc<Entry>>>,
}

/// One of them. Whoever starts or ends it holds the lock meanwhile.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) phase: tokio::sync::Mutex<Phase>,
}

/// Where in its life it is.
#[derive(Debug, Default)]
pub(super) enum Phase {
    /// Not yet running, or no more.
    #[default]
    Absent,
    /// Running.
    Live(Live),
}

/// What is known of a running sandbox.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) running: Running,
    pub(super) group: Arc<Group>,
}

impl Sandboxes {
    /// The entry of a sandbox, made if it is not there.
    pub(super) fn entry(&self, id: SandboxId) -> Arc<Entry> {
        Arc::clone(self.lock().entry(id).or_default())
    }

    /// The entry of a sandbox.
    pub(super) fn get(&self, id: SandboxId) -> Option<Arc<Entry>> {
        self.lock().get(&id).cloned()
    }

    /// Gives an entry back, and forgets it if nobody else has it and it is not running.
    pub(super) fn put(&self, id: SandboxId, entry: Arc<Entry>) {
        let mut entries = self.lock();
        // The table's and the caller's. Others can only be made under the lock that is held.
        let last = Arc::strong_count(&entry) == 2;
        let absent = entry.phase.try_lock().is_ok_and(|phase| matches!(*phase, Phase::Absent));
        if last && absent {
            entries.remove(&id);
        }
    }

    /// A running sandbox.
    pub(super) async fn live(&self, id: SandboxId) -> Option<Live> {
        let entry = self.get(id)?;
        let live = match &*entry.phase.lock().await {
            Phase::Live(live) => Some(live.clone()),
            Phase::Absent => None,
        };
        self.put(id, entry);
        live
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sandbox about to be watched.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) id: SandboxId,
    pub(super) place: Place,
    pub(super) group: Arc<Group>,
    pub(super) pid: u32,
    pub(super) pidfd: AsyncFd<OwnedFd>,
    pub(super) agent: Agent,
    pub(super) address: Option<std::net::Ipv4Addr>,
}

/// Starts the task that waits for the end of a sandbox. When the end comes, the task releases
/// everything that the sandbox had, and only then says so.
pub(super) fn watch_over(host: &Arc<Host>, table: &Table, watched: Watched) -> Live {
    let Watched { id, place, group, pid, pidfd, agent, address } = watched;
    let (tell, exit) = watch::channel(None);
    let slot = place.slot;
    let (host, table, its_group) = (Arc::clone(host), Arc::clone(table), Arc::clone(&group));
    tokio::spawn(async move {
        end_of_process(&pidfd).await;
        let exit = end_of(id, &pidfd, its_group).await;
        clean_up(&host, &place).await;
        if let Err(error) = host.state.remove(id) {
            tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "state is left");
        }
        let entry = table.entry(id);
        *entry.phase.lock().await = Phase::Absent;
        table.put(id, entry);
        tracing::debug!(sandbox = %id, reason = %exit.reason, "ended");
        tell.send_replace(Some(exit));
    });
    Live { running: Running { agent, slot, address, pid, exit }, group }
}

/// Makes the end of a process something that can be waited for.
pub(super) fn waitable(id: SandboxId, pidfd: OwnedFd) -> Result<AsyncFd<OwnedFd>, RuntimeError> {
    sys::readable(pidfd).map_err(|source| RuntimeError::Start {
        id,
        step: "watch its first process".to_owned(),
        source,
    })
}

/// Waits for the end of a process.
pub(super) async fn end_of_process(pidfd: &AsyncFd<OwnedFd>) {
    while let Err(error) = pidfd.readable().await {
        tracing::warn!(%error, "cannot wait for the end of a sandbox");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn end_of(id: SandboxId, pidfd: &AsyncFd<OwnedFd>, group: Arc<Group>) -> Exit {
    let kills = match blocking(move || group.oom_kills()).await {
        Ok(kills) => kills,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(sandbox = %id, error, "cannot tell whether it ran out of memory");
            0
        }
    };
    let end = how(sys::wait_status(pidfd.as_fd()));
    let reason = match kills {
        0 => end,
        1 => format!("{end}; the sandbox had run out of memory"),
        n => format!("{end}; the sandbox had run out of memory {n} times"),
    };
    Exit { out_of_memory: kills > 0, reason: reason.into() }
}

/// One clause about a wait status.
fn how(status: Option<i32>) -> String {
    let Some(status) = status else { return "its first process ended".to_owned() };
    match (status & 0x7f, status >> 8 & 0xff) {
        (0, 0) => "its first process ended in order".to_owned(),
        (0, code) => format!("its first process ended with exit code {code}"),
        (signal, _) => format!("its first process was killed by signal {signal}"),
    }
}
