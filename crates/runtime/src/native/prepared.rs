//! A slot that is ready for a sandbox: its control group, its namespaces, its network.

use std::sync::Arc;
use std::time::Duration;

use kiln_types::SandboxId;

use super::host::{Host, blocking, network};
use crate::cgroup::{CgroupError, Group};
use crate::launcher::{LauncherError, Parked};
use crate::network::Attachment;
use crate::runtime::{RuntimeError, Slot};

/// How long the processes of a group may take to die, and the kernel to let go of the group.
pub(super) const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How many slots may turn out to be used before no more are tried.
const REFUSALS: usize = 16;

/// The slot. To be given back by [`Prepared::discard`], not dropped.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) parked: Parked,
    pub(super) place: Place,
    pub(super) group: Group,
    pub(super) attachment: Option<Attachment>,
}

/// What has to be cleaned up after a sandbox, running or not.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) slot: Slot,
    /// The name of the control group.
    pub(super) group: String,
    /// Whether the slot came from [`crate::runtime::Slots`] and was not yet given to a sandbox.
    pub(super) reserved: bool,
}

/// Makes a slot ready: `slot`, or a free one. Errors speak of `id`.
pub(super) async fn prepare(
    host: &Arc<Host>,
    id: SandboxId,
    slot: Option<Slot>,
    networked: bool,
) -> Result<Prepared, RuntimeError> {
    let reserved = slot.is_none();
    let slot = match slot {
        Some(slot) if host.used.take(slot).await => slot,
        Some(slot) => {
            return Err(RuntimeError::Busy { id, what: format!("slot {} is used", slot.0) });
        }
        None => take_free(host, id).await?,
    };
    let place = Place { slot, group: host.group_name(), reserved };
    match fill(host, id, &place, networked).await {
        Ok((parked, group, attachment)) => Ok(Prepared { parked, place, group, attachment }),
        Err(error) => {
            clean_up(host, &place).await;
            Err(error)
        }
    }
}

/// Takes a free slot. One that is free by the books but used on this host, by what could not be ended,
/// is passed over, and given back afterwards: else it would be the next one to be had again.
async fn take_free(host: &Host, id: SandboxId) -> Result<Slot, RuntimeError> {
    let mut refused = Vec::new();
    let result = loop {
        let slot = match host.slots.reserve().await {
            Ok(slot) => slot,
            Err(source) => break Err(RuntimeError::Slot { id, source }),
        };
        if host.used.take(slot).await {
            break Ok(slot);
        }
        refused.push(slot);
        if refused.len() == REFUSALS {
            break Err(RuntimeError::Busy { id, what: format!("slot {} is used", slot.0) });
        }
    };
    for slot in refused {
        if let Err(error) = host.slots.release(slot).await {
            let error: &dyn std::error::Error = error.as_ref();
            tracing::warn!(slot = slot.0, error, "it stays reserved");
        }
    }
    result
}

async fn fill(
    host: &Arc<Host>,
    id: SandboxId,
    place: &Place,
    networked: bool,
) -> Result<(Parked, Group, Option<Attachment>), RuntimeError> {
    let (parked, group) = {
        let (host, place) = (Arc::clone(host), place.clone());
        blocking(move || park(&host, id, &place)).await?
    };
    let netns = std::os::fd::AsFd::as_fd(&parked.netns);
    let attachment = if networked {
        let attached = host.network.attach(netns, place.slot).await;
        let attached = attached.map_err(network(id, "connect it to the network"))?;
        kiln_failpoint::reach("slot.connected")
            .map_err(network(id, "connect it to the network"))?;
        Some(attached)
    } else {
        let done = host.network.loopback_only(netns).await;
        done.map_err(network(id, "set its loopback up"))?;
        None
    };
    Ok((parked, group, attachment))
}

fn park(host: &Host, id: SandboxId, place: &Place) -> Result<(Parked, Group), RuntimeError> {
    let failed = |action| cgroup(action, &place.group);
    let group =
        Group::create(&host.hierarchy, &host.group_parent, &place.group).map_err(failed("make"))?;
    kiln_failpoint::pass("slot.group-made");
    let born_in = group.v2_dir().map_err(failed("open"))?;
    let base = host.config.block.id_base(place.slot);
    let cgroup = born_in.as_ref().map(std::os::fd::AsFd::as_fd);
    let parked = host.launcher.park(base, cgroup).map_err(launcher(id, "prepared a sandbox"))?;
    kiln_failpoint::pass("slot.parked");
    // Slow on version 1, so it is done here: what the process forks later is born in the groups.
    group.add_process(parked.pid).map_err(failed("add a process to"))?;
    Ok((parked, group))
}

impl Prepared {
    /// Whether a sandbox can still be started in it.
    pub(super) fn is_usable(&self) -> bool {
        self.parked.is_alive()
    }

    /// Undoes everything.
    pub(super) async fn discard(self, host: &Arc<Host>) {
        drop((self.parked, self.group));
        clean_up(host, &self.place).await;
    }
}

/// Ends what may still run in a place and releases its group; then, without being waited for, its
/// network and, if no sandbox ever had it, its slot: the kernel takes tens of milliseconds to take a
/// network apart. What cannot be released is logged and left to a later sweep. What cannot even be ended
/// keeps its slot: nobody else may get the ids and the address of processes that still run.
pub(super) async fn clean_up(host: &Arc<Host>, place: &Place) {
    let group = {
        let (host, name) = (Arc::clone(host), place.group.clone());
        let end = move || {
            let emptied = empty_group(&host, &name)?;
            Ok::<_, RuntimeError>(emptied.map(|group| delete(&group, &name)))
        };
        blocking(end).await
    };
    match group {
        Err(error) => return warn(&error, place, "it still runs, and keeps its slot"),
        Ok(Some(Err(error))) => warn(&error, place, "its control group is left"),
        Ok(_) => {}
    }
    kiln_failpoint::pass("slot.group-removed");
    host.used.close(place.slot);
    tokio::spawn({
        let (host, place) = (Arc::clone(host), place.clone());
        async move {
            if let Err(error) = host.network.detach(place.slot).await {
                warn(&error, &place, "its network is left");
            }
            kiln_failpoint::pass("slot.disconnected");
            if place.reserved
                && let Err(error) = host.slots.release(place.slot).await
            {
                warn(error.as_ref(), &place, "it stays reserved");
            }
            // Last: whoever reserves the slot meanwhile waits for this.
            host.used.free(place.slot);
        }
    });
}

/// Kills everything in a group and removes it. Fine when there is none.
pub(super) fn remove_group(host: &Host, name: &str) -> Result<(), RuntimeError> {
    empty_group(host, name)?.map_or(Ok(()), |group| delete(&group, name))
}

/// Kills everything in a group, and gives the group if there is one.
fn empty_group(host: &Host, name: &str) -> Result<Option<Group>, RuntimeError> {
    let failed = |action| cgroup(action, name);
    let open = || Group::open(&host.hierarchy, &host.group_parent, name).map_err(failed("open"));
    let Some(group) = open()? else { return Ok(None) };
    group.kill().map_err(failed("kill"))?;
    group.wait_empty(KILL_DEADLINE).map_err(failed("empty"))?;
    Ok(Some(group))
}

fn delete(group: &Group, name: &str) -> Result<(), RuntimeError> {
    group.remove(KILL_DEADLINE).map_err(cgroup("remove", name))
}

fn warn(error: &(dyn std::error::Error + 'static), place: &Place, consequence: &str) {
    tracing::warn!(slot = place.slot.0, group = place.group, error, "{consequence}");
}

/// For `map_err`: an operation on a control group.
pub(crate) fn cgroup(
    action: &'static str,
    group: &str,
) -> impl FnOnce(CgroupError) -> RuntimeError {
    let group = group.to_owned();
    move |source| RuntimeError::Cgroup { action, group, source }
}

/// For `map_err`: something that the launcher was asked to do.
pub(crate) fn launcher(
    id: SandboxId,
    action: &'static str,
) -> impl FnOnce(LauncherError) -> RuntimeError {
    move |error| match error {
        LauncherError::Step { step, source } => RuntimeError::Start { id, step, source },
        source => RuntimeError::Launcher { action, source: Box::new(source) },
    }
}
