//! What an earlier life of the daemon has left: sandboxes that run, and sandboxes that do not.

use std::sync::Arc;
use std::time::Duration;

use kiln_types::SandboxId;

use super::files::Record;
use super::host::{Host, blocking, setup};
use super::prepared::{Place, cgroup, clean_up, remove_group};
use super::process::{boot_id, open};
use super::sandbox::{Live, Table, Watched, end_of_process, waitable, watch_over};
use crate::agent::Agent;
use crate::cgroup::Group;
use crate::runtime::{RuntimeError, SandboxSpec, Slot};

/// How long the agent of a sandbox may take to answer a new daemon.
const AGENT_DEADLINE: Duration = Duration::from_secs(10);
/// How long the agent may take to answer when its link was lost.
const RELINK_DEADLINE: Duration = Duration::from_secs(1);
/// How long a sandbox may take to run on after it was frozen.
const THAW_DEADLINE: Duration = Duration::from_secs(10);

/// Makes a lost link to a running sandbox's agent anew; does nothing when it is not lost.
///
/// The deadline is short: the watcher of the sandbox's end waits for whoever calls this.
pub(super) async fn relink(
    host: &Host,
    id: SandboxId,
    live: &mut Live,
) -> Result<(), RuntimeError> {
    if !live.running.agent.is_lost() {
        return Ok(());
    }
    let agent = Agent::connect(&host.state.socket(id), RELINK_DEADLINE).await;
    live.running.agent = agent.map_err(|source| RuntimeError::Agent { id, source })?;
    Ok(())
}

/// Finds a running sandbox. `None`: it does not run, and nothing of it is left.
pub(super) async fn adopt(
    host: &Arc<Host>,
    table: &Table,
    spec: &SandboxSpec,
) -> Result<Option<Live>, RuntimeError> {
    let id = spec.id;
    let found = {
        let host = Arc::clone(host);
        blocking(move || find(&host, id)).await?
    };
    let Some((record, pidfd, group)) = found else {
        remove_stale(host, id).await?;
        return Ok(None);
    };
    let slot = record.slot();
    if !host.used.take(slot).await {
        return Err(RuntimeError::Busy { id, what: format!("slot {} is used", slot.0) });
    }
    let group = Arc::new(group);
    let place = Place { slot, group: record.group, reserved: false };
    let connected = async {
        let pidfd = waitable(id, pidfd)?;
        let frozen = Arc::clone(&group);
        // The earlier daemon may have ended while it held the sandbox still.
        blocking(move || frozen.thaw(THAW_DEADLINE)).await.map_err(cgroup("thaw", &place.group))?;
        let socket = host.state.socket(id);
        let agent = tokio::select! {
            connected = Agent::connect(&socket, AGENT_DEADLINE) => {
                connected.map_err(|source| RuntimeError::Agent { id, source })?
            }
            () = end_of_process(&pidfd) => return Ok(None),
        };
        Ok(Some((pidfd, agent)))
    }
    .await;
    match connected {
        Ok(Some((pidfd, agent))) => {
            let address = record.network.then(|| host.config.block.guest(slot));
            let watched = Watched { id, place, group, pid: record.pid, pidfd, agent, address };
            Ok(Some(watch_over(host, table, watched)))
        }
        Ok(None) => {
            clean_up(host, &place).await;
            host.state.remove(id)?;
            Ok(None)
        }
        Err(error) => {
            host.used.free(slot);
            Err(error)
        }
    }
}

type Found = (Record, std::os::fd::OwnedFd, Group);

fn find(host: &Host, id: SandboxId) -> Result<Option<Found>, RuntimeError> {
    let Some(record) = host.state.read(id) else { return Ok(None) };
    if boot_id().ok().as_ref() != Some(&record.boot) {
        return Ok(None);
    }
    let Some(pidfd) = open(record.pid, record.started) else { return Ok(None) };
    let group = Group::open(&host.hierarchy, &host.group_parent, &record.group)
        .map_err(cgroup("open", &record.group))?;
    Ok(group.map(|group| (record, pidfd, group)))
}

/// Ends what may still run of a sandbox that is not in the table, and removes what it has left.
pub(super) async fn remove_stale(host: &Arc<Host>, id: SandboxId) -> Result<(), RuntimeError> {
    if let Some(record) = host.state.read(id) {
        let slot = record.slot();
        if host.used.take(slot).await {
            clean_up(host, &Place { slot, group: record.group, reserved: false }).await;
        } else {
            // Another sandbox has the slot by now, and with it the network.
            let host = Arc::clone(host);
            blocking(move || remove_group(&host, &record.group)).await?;
        }
    }
    host.state.remove(id)
}

/// Removes everything that belongs neither to a sandbox in `alive` nor to this life of the daemon.
pub(super) async fn sweep(
    host: &Arc<Host>,
    table: &Table,
    alive: &[SandboxId],
) -> Result<(), RuntimeError> {
    for id in host.state.list()? {
        if !alive.contains(&id) && table.get(id).is_none() {
            tracing::info!(sandbox = %id, "removing what a sandbox has left");
            remove_stale(host, id).await?;
        }
    }
    let records: Vec<Record> = alive.iter().filter_map(|id| host.state.read(*id)).collect();
    let groups = {
        let host = Arc::clone(host);
        let kept: Vec<String> = records.iter().map(|record| record.group.clone()).collect();
        move || {
            let found = host
                .hierarchy
                .list(&host.group_parent)
                .map_err(cgroup("list", &host.group_parent))?;
            for name in found {
                if !host.is_own_group(&name) && !kept.contains(&name) {
                    tracing::info!(group = name, "removing a control group that nobody has");
                    remove_group(&host, &name)?;
                }
            }
            Ok(())
        }
    };
    blocking(groups).await?;
    let kept: Vec<Slot> = records.iter().map(Record::slot).collect();
    let failed = || setup("remove what is left in the network");
    for slot in host.network.connected().await.map_err(failed())? {
        // Taken meanwhile, so that nobody connects it at the same time.
        if !kept.contains(&slot) && host.used.take_if_free(slot) {
            let detached = host.network.detach(slot).await;
            host.used.free(slot);
            detached.map_err(failed())?;
        }
    }
    Ok(())
}
