//! Starting a sandbox in a slot that is ready.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln_types::SandboxId;

use super::engine::{Engine, Ready};
use super::files::Record;
use super::host::{Host, blocking, read};
use super::prepared::{Place, Prepared, cgroup, clean_up};
use super::process::{boot_id, has_ended, start_time};
use super::sandbox::{Live, Table, Watched, end_of_process, waitable, watch_over};
use crate::agent::Agent;
use crate::cgroup::Group;
use crate::launcher::{Launch, Launched, Parked};
use crate::network::{Attachment, hosts_file, resolv_conf};
use crate::runtime::{RootSource, RuntimeError, SandboxSpec, Userns};

/// How long an agent may take from its exec to its first answer.
const AGENT_DEADLINE: Duration = Duration::from_secs(10);
/// The longest host name (`HOST_NAME_MAX`).
const HOSTNAME_MAX: usize = 64;
/// The longest environment of PID 1. Commands carry their own.
const ENV_MAX: usize = 96 * 1024;
/// The resolver's configuration where systemd-resolved hides it behind a local address.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Refuses what could not be passed on faithfully.
pub(super) fn check(spec: &SandboxSpec) -> Result<(), RuntimeError> {
    let invalid = |field, value: &str, problem| RuntimeError::Invalid {
        id: spec.id,
        field,
        value: value.chars().take(80).collect(),
        problem,
    };
    let usable = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let name = &spec.hostname;
    if name.is_empty() || name.len() > HOSTNAME_MAX || !name.chars().all(usable) {
        let problem = "is not 1 to 64 ASCII letters, digits, '-' and '.'";
        return Err(invalid("hostname", name, problem));
    }
    let mut length = 0;
    for (key, value) in &spec.env {
        length += key.len() + value.len() + 2;
        if length > ENV_MAX {
            let problem =
                "makes the environment longer than 96 KiB: shorten it, or give it to commands";
            return Err(invalid("env", key, problem));
        }
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(invalid("env", key, "is no name of a variable: it is empty or has '='"));
        }
        if value.contains('\0') {
            return Err(invalid(
                "env",
                key,
                "has a NUL in its value, which no process can receive",
            ));
        }
    }
    Ok(())
}

/// Starts the sandbox. If that fails, nothing of it is left.
pub(super) async fn start(
    host: &Arc<Host>,
    table: &Table,
    engine: &Arc<dyn Engine>,
    spec: SandboxSpec,
    root: Box<dyn RootSource>,
    prepared: Prepared,
) -> Result<Live, RuntimeError> {
    let Prepared { parked, place, group, attachment } = prepared;
    let id = spec.id;
    let result = async {
        let group = Arc::new(group);
        let (launched, group) = {
            let (host, engine, place) = (Arc::clone(host), Arc::clone(engine), place.clone());
            let address = attachment;
            let work = move || launch(&host, &*engine, &spec, root, parked, &place, group, address);
            blocking(work).await?
        };
        let pidfd = waitable(id, launched.pidfd)?;
        let socket = host.state.socket(id);
        let agent = tokio::select! {
            connected = Agent::connect(&socket, AGENT_DEADLINE) => {
                connected.map_err(|source| RuntimeError::Agent { id, source })?
            }
            () = end_of_process(&pidfd) => return Err(died(id, &group)),
        };
        Ok((launched.pid, pidfd, group, agent))
    }
    .await;
    match result {
        Ok((pid, pidfd, group, agent)) => {
            let watched = Watched {
                id,
                // From here on the slot belongs to the sandbox.
                place: Place { reserved: false, ..place },
                group,
                pid,
                pidfd,
                agent,
                address: attachment.map(|attachment| attachment.address),
            };
            Ok(watch_over(host, table, watched))
        }
        Err(error) => {
            clean_up(host, &place).await;
            if let Err(error) = host.state.remove(id) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(sandbox = %id, error, "its state directory is left");
            }
            Err(error)
        }
    }
}

/// The agent has started and ended at once. With a tight limit the likely cause is memory.
fn died(id: SandboxId, group: &Group) -> RuntimeError {
    let reason = match group.oom_kills() {
        Ok(1..) => "it ended at once: the memory limit is too low for it to start",
        _ => "it ended at once",
    };
    RuntimeError::Start {
        id,
        step: "start the agent".to_owned(),
        source: std::io::Error::other(reason),
    }
}

#[expect(clippy::too_many_arguments, reason = "one caller, which has them one by one")]
fn launch(
    host: &Host,
    engine: &dyn Engine,
    spec: &SandboxSpec,
    root: Box<dyn RootSource>,
    parked: Parked,
    place: &Place,
    group: Arc<Group>,
    attachment: Option<Attachment>,
) -> Result<(Launched, Arc<Group>), RuntimeError> {
    let id = spec.id;
    let limit = |limits| group.set_limits(&limits).map_err(cgroup("limit", &place.group));
    let (starting, running) =
        (engine.starting_limits(&spec.limits), engine.running_limits(&spec.limits));
    limit(starting)?;
    let listener = host.state.make(id)?;
    let bundle = host
        .ca_bundle
        .as_ref()
        .map(|bundle| bundle.copy(id, &host.launcher, Some(parked.generation)));
    let request = Launch {
        hostname: spec.hostname.clone(),
        hosts: hosts_file(&spec.hostname, attachment.map(|attachment| attachment.address)),
        resolv_conf: resolver()?,
        env: spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        shm_bytes: spec.limits.memory / 2,
        ca_bundle: bundle.transpose()?,
        no_new_privs: host.config.no_new_privs,
    };
    let userns = parked.userns.as_fd();
    let base = host.config.block.id_base(place.slot);
    let root = root
        .mount(Userns { fd: userns, base })
        .map_err(|source| RuntimeError::Root { id, source })?;
    kiln_failpoint::reach("sandbox.root-mounted")
        .map_err(|source| RuntimeError::Root { id, source: source.into() })?;
    let launched = engine.launch(Ready {
        id,
        parked,
        group: &group,
        group_path: format!("/{}/{}", host.group_parent, place.group),
        hierarchy: &host.hierarchy,
        id_base: base,
        root,
        listener,
        launch: request,
        limits: spec.limits,
        dir: host.state.of(id),
    })?;
    if running != starting {
        limit(running)?;
    }
    kiln_failpoint::pass("sandbox.launched");
    for file in &launched.skipped {
        tracing::debug!(sandbox = %id, file, "the image has no place for it");
    }
    let unreadable =
        |source| RuntimeError::Start { id, step: "identify the first process".into(), source };
    let started = start_time(launched.pid);
    if has_ended(&launched.pidfd) {
        // The number could be another process's by now.
        return Err(died(id, &group));
    }
    let record = Record {
        pid: launched.pid,
        started: started.map_err(unreadable)?,
        boot: boot_id().map_err(unreadable)?,
        slot: place.slot.0,
        group: place.group.clone(),
        network: attachment.is_some(),
    };
    host.state.write(id, &record)?;
    kiln_failpoint::pass("sandbox.state-written");
    Ok((launched, group))
}

fn resolver() -> Result<String, RuntimeError> {
    let path = Path::new("/etc/resolv.conf");
    let own = if path.exists() { read(path)? } else { String::new() };
    Ok(resolv_conf(&own, std::fs::read_to_string(RESOLVED).ok().as_deref()))
}
