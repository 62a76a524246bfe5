//! What has to hold after each point.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use kiln_types::api::{CreateSandbox, FsckRequest, SandboxStatus};

use crate::daemon::Daemon;
use crate::host::{self, OnHost};
use crate::operation::compare;
use crate::world::{There, World};

/// How long what runs in the background may take to come to rest.
const REST: Duration = Duration::from_secs(30);
/// Sandboxes that the daemon keeps prepared.
pub(crate) const POOL: usize = 2;

/// Disks that the daemon keeps ready: as many for sandboxes as for steps of builds.
const READY_DISKS: usize = 2 * POOL;

/// Compares what the daemon shows with what it has acknowledged, and learns what was open.
pub(crate) async fn journal(
    daemon: &Daemon,
    world: &mut World,
    touched: &BTreeSet<String>,
) -> Result<()> {
    sandboxes(daemon, world, touched).await?;
    images(daemon, world, touched).await
}

async fn sandboxes(daemon: &Daemon, world: &mut World, touched: &BTreeSet<String>) -> Result<()> {
    let client = daemon.client();
    let listed = client.sandboxes().await.context("the sandboxes cannot be listed")?;
    let mut listed: BTreeMap<String, _> =
        listed.into_iter().map(|info| (info.name.clone().unwrap_or_default(), info)).collect();
    let known: Vec<String> = world.sandboxes.keys().cloned().collect();
    for name in known {
        let Some(info) = listed.remove(&name) else {
            let gone = world.sandboxes.remove(&name).expect("its name was just listed");
            ensure!(gone.there == There::Perhaps, "sandbox {name} was acknowledged and is gone");
            continue;
        };
        let expected = world.sandboxes.get_mut(&name).expect("its name was just listed");
        expected.there = There::Yes;
        let runs = match info.status {
            SandboxStatus::Running => true,
            SandboxStatus::Stopped => false,
            other => bail!("sandbox {name} is still {other:?}"),
        };
        if let Some(should) = expected.runs {
            ensure!(
                should == runs,
                "sandbox {name} should {} but is {:?} ({})",
                if should { "run" } else { "be stopped" },
                info.status,
                info.reason.unwrap_or_default()
            );
        }
        expected.runs = Some(runs);
        if runs {
            compare(client, &name, &expected.files).await?;
        } else if touched.contains(&name) {
            client.start_sandbox(&name).await.with_context(|| format!("{name} does not start"))?;
            compare(client, &name, &expected.files).await?;
            client.stop_sandbox(&name).await.with_context(|| format!("{name} does not stop"))?;
        }
    }
    if let Some(name) = listed.keys().next() {
        bail!("sandbox {name} is listed, but was refused or removed");
    }
    Ok(())
}

async fn images(daemon: &Daemon, world: &mut World, touched: &BTreeSet<String>) -> Result<()> {
    let client = daemon.client();
    let images = client.images().await.context("the images cannot be listed")?;
    let mut names: BTreeSet<String> = images
        .iter()
        .flat_map(|image| &image.names)
        .map(|name| name.trim_end_matches(":latest").to_owned())
        .collect();
    let snapshots = client.snapshots().await.context("the snapshots cannot be listed")?;
    let mut snapshots: BTreeSet<String> = snapshots.into_iter().map(|it| it.name).collect();
    let known: Vec<String> = world.images.keys().cloned().collect();
    for name in known {
        let expected = world.images.get_mut(&name).expect("its name was just listed");
        let listed = names.remove(&name);
        if expected.snapshot {
            let row = snapshots.remove(&name);
            ensure!(
                row || !listed,
                "image {name} is listed, but the snapshot that it belongs to is not"
            );
            ensure!(listed || !row, "snapshot {name} is listed, but its image has not its name");
        }
        if !listed {
            ensure!(expected.there == There::Perhaps, "image {name} was acknowledged and is gone");
            world.images.remove(&name);
            continue;
        }
        expected.there = There::Yes;
        if touched.contains(&name) {
            let probe = format!("probe-{name}");
            let create = CreateSandbox {
                image: name.clone(),
                name: Some(probe.clone()),
                ..CreateSandbox::default()
            };
            client
                .create_sandbox(&create)
                .await
                .with_context(|| format!("no sandbox can be made of image {name}"))?;
            compare(client, &probe, &expected.files).await?;
            client.remove_sandbox(&probe, true).await.context("a probe cannot be removed")?;
        }
    }
    if let Some(name) = names.iter().chain(&snapshots).next() {
        bail!("image or snapshot {name} is listed, but was refused or removed");
    }
    Ok(())
}

/// Waits until the daemon has on this host what its sandboxes need, and nothing else.
pub(crate) async fn host(daemon: &Daemon, world: &World) -> Result<OnHost> {
    let running = world.sandboxes(Some(true)).len();
    let pid = daemon.pid().context("the daemon runs")?;
    let block = host::block(daemon.data())?.context("the daemon has no share of the host")?;
    let began = Instant::now();
    loop {
        let found = host::look(daemon.program(), pid, daemon.data(), block)?;
        let Some(problem) = superfluous(&found, running) else { return Ok(found) };
        if began.elapsed() > REST {
            bail!("{problem}, with {running} sandboxes running: {found:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn superfluous(found: &OnHost, running: usize) -> Option<String> {
    let expected = running + POOL;
    let processes = &found.processes;
    let counts = [
        ("launchers", processes.launchers.len(), 1),
        ("parked processes", processes.parked.len(), POOL),
        ("other processes", processes.others.len(), 0),
        ("control groups", found.groups.len(), expected),
        ("control groups with processes", found.populated.len(), expected),
        ("network links", found.links.len(), expected),
        ("tables of the packet filter", found.tables.len(), 1),
        ("mounts of the data directory", found.mounts.len(), 0),
    ];
    let wrong = counts.into_iter().find(|(_, found, expected)| found != expected);
    if let Some((what, found, expected)) = wrong {
        return Some(format!("{found} {what} instead of {expected}"));
    }
    (found.loops.len() > running + READY_DISKS)
        .then(|| format!("{} loop devices", found.loops.len()))
}

/// Compares the files of the data directory with what the daemon shows.
pub(crate) async fn files(daemon: &Daemon, world: &World) -> Result<()> {
    let began = Instant::now();
    loop {
        let Err(problem) = files_now(daemon, world).await else { return Ok(()) };
        if began.elapsed() > REST {
            return Err(problem);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn files_now(daemon: &Daemon, world: &World) -> Result<()> {
    let (client, data) = (daemon.client(), daemon.data());
    let sandboxes = client.sandboxes().await?;
    let ids: BTreeSet<String> = sandboxes.iter().map(|info| info.id.to_string()).collect();
    let uppers: BTreeSet<String> = names(&data.join("uppers"))?
        .iter()
        .map(|name| name.trim_end_matches(".ext4").to_owned())
        .collect();
    ensure!(uppers == ids, "disks {uppers:?} of sandboxes {ids:?}");
    let running = sandboxes.iter().filter(|info| info.status == SandboxStatus::Running);
    let running: BTreeSet<String> = running.map(|info| info.id.to_string()).collect();
    let states: BTreeSet<String> =
        names(&data.join("run"))?.into_iter().filter(|name| name.starts_with("sbx_")).collect();
    ensure!(states == running, "records {states:?} of running sandboxes {running:?}");
    ensure!(running.len() == world.sandboxes(Some(true)).len(), "{running:?} run");
    let builds = client.builds().await?;
    let builds: BTreeSet<String> = builds.into_iter().map(|info| info.id.to_string()).collect();
    let logs = names(&data.join("builds"))?;
    if let Some(orphan) = logs.iter().find(|log| !builds.contains(*log)) {
        bail!("builds/{orphan} belongs to no build");
    }
    let sessions = names(&data.join("blobs/tmp"))?;
    ensure!(sessions.len() == 1, "directories for temporary blobs: {sessions:?}");
    for session in sessions {
        let drafts = names(&data.join("blobs/tmp").join(session))?;
        ensure!(drafts.is_empty(), "temporary blobs: {drafts:?}");
    }
    if let Some(draft) = names(&data.join("indexes"))?.iter().find(|it| it.starts_with('.')) {
        bail!("a temporary index: {draft}");
    }
    let layers = data.join("layers");
    let laid_out = if layers.exists() { names(&layers)? } else { BTreeSet::new() };
    if let Some(half) = laid_out.iter().find(|name| name.starts_with('.')) {
        bail!("a half-made or half-removed layer: {half}");
    }
    Ok(())
}

fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Has the daemon hold everything that it stores against what it must be. With `repair`, what was
/// damaged on purpose is repaired first.
pub(crate) async fn fsck(daemon: &Daemon, repair: bool) -> Result<()> {
    let client = daemon.client();
    if repair {
        let report = client.fsck(&FsckRequest { repair: true }).await.context("fsck --repair")?;
        ensure!(report.clean, "fsck --repair leaves {:?}", report.findings);
    }
    let report = client.fsck(&FsckRequest::default()).await.context("fsck")?;
    ensure!(report.clean, "fsck finds {:?}", report.findings);
    Ok(())
}

/// Whether the daemon has no more descriptors open than what it shows can need.
pub(crate) async fn descriptors(daemon: &Daemon, world: &World) -> Result<()> {
    let pid = daemon.pid().context("the daemon runs")?;
    let images = daemon.client().images().await?;
    let layers: BTreeSet<String> = images
        .iter()
        .flat_map(|image| &image.layers)
        .map(|layer| layer.diff_id.to_string())
        .collect();
    let prepared = POOL + READY_DISKS;
    // Those of the daemon itself and of its clients; of each sandbox; of each layer, whose mount is kept.
    let most = 60 + 10 * (world.sandboxes(None).len() + prepared) + 2 * layers.len();
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    ensure!(open <= most, "{open} descriptors are open, and {most} are enough");
    Ok(())
}

/// Waits until nothing is left on this host after the last sandbox and the daemon itself are gone: its
/// launcher ends when it notices that.
pub(crate) async fn gone(program: &Path, data: &Path, block: u32) -> Result<()> {
    let began = Instant::now();
    loop {
        let Err(problem) = gone_now(program, data, block) else { return Ok(()) };
        if began.elapsed() > REST {
            return Err(problem);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn gone_now(program: &Path, data: &Path, block: u32) -> Result<()> {
    let found = host::look(program, 0, data, block)?;
    // Another daemon may have the share by now, and with it links and groups.
    let claimed = host::block(data)?;
    ensure!(claimed.is_none(), "the share {block} of the host is still claimed");
    let processes = &found.processes;
    let left: Vec<u32> = [&processes.launchers, &processes.parked, &processes.others]
        .into_iter()
        .flatten()
        .copied()
        .collect();
    ensure!(left.is_empty(), "processes {left:?} outlive the daemon");
    ensure!(found.mounts.is_empty(), "mounts outlive the daemon: {:?}", found.mounts);
    ensure!(found.loops.is_empty(), "loop devices outlive the daemon: {:?}", found.loops);
    Ok(())
}
