//! What an idle sandbox costs in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::drivers::{Driver, drivers};
use crate::kiln::Kiln;
use crate::peers::Network;
use crate::record::Recorder;
use crate::rig::{BASE, Rig};
use crate::turns::Cost;

/// How many there are at the same time.
const COUNT: u32 = 50;
/// As many of those that take long to make, and much memory.
const COUNT_OF_SLOW: u32 = 10;
const MIB: f64 = 1024.0 * 1024.0;
/// Accounting is done in batches; what is idle has none left after this.
const SETTLE: Duration = Duration::from_secs(3);

/// The proportional set size of all processes that are there for a sandbox alone, the kernel memory of its
/// control group, and a 50th of what all of them share.
pub(super) fn memory(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    of_kiln(recorder, rig)?;
    of_podman(recorder, rig)?;
    of_runc(recorder, rig)
}

fn of_kiln(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let registry = rig.registry()?;
    let (kiln, _) = Kiln::start(rig.program(), &rig.path("memory"), &[], &registry.host())?;
    kiln.pull(&registry.reference(), BASE)?;
    // What the daemon needs once is not the price of a sandbox.
    let first = kiln.create(BASE)?;
    kiln.exec(&first, &["true"])?;
    kiln.remove(&first)?;
    let before = proportional(kiln.pid())?;
    let sandboxes = idle(recorder, &kiln, "kiln", COUNT, || kiln.create(BASE))?;
    let grown = (proportional(kiln.pid())? - before).max(0.0);
    recorder.sample("memory", "kiln, the daemon's own growth", grown / f64::from(COUNT) / MIB)?;
    sandboxes.iter().try_for_each(|sandbox| kiln.remove(sandbox))?;
    for Driver { name, title, cost } in drivers(recorder, &kiln, "memory")? {
        let count = if cost == Cost::High { COUNT_OF_SLOW } else { COUNT };
        let sandboxes = idle(recorder, &kiln, title, count, || kiln.create_by(BASE, name))?;
        sandboxes.iter().try_for_each(|sandbox| kiln.remove(sandbox))?;
    }
    Ok(())
}

/// Makes sandboxes, and writes down what each costs while all of them are idle.
fn idle(
    recorder: &mut Recorder,
    kiln: &Kiln,
    who: &str,
    count: u32,
    create: impl Fn() -> Result<String>,
) -> Result<Vec<String>> {
    let mut sandboxes = Vec::new();
    for _ in 0..count {
        let sandbox = create()?;
        kiln.exec(&sandbox, &["true"])?;
        sandboxes.push(sandbox);
    }
    thread::sleep(SETTLE);
    let mut own = Vec::new();
    for sandbox in &sandboxes {
        let state = fs::read(kiln.data.join("run").join(sandbox).join("state.json"))?;
        let state: Value = serde_json::from_slice(&state)?;
        let first = state["pid"].as_u64().context("no process id")? as u32;
        own.push((first, members(first)?));
    }
    // The launcher, and the processes that it keeps parked for the next sandboxes.
    let mut shared = 0.0;
    for child in descendants(kiln.pid())? {
        if !own.iter().any(|(_, members)| members.contains(&child)) {
            shared += proportional(child)?;
        }
    }
    for (first, members) in &own {
        let mut all = kernel(*first)?;
        for &member in members {
            all += proportional(member)?;
        }
        recorder.sample("memory", who, (all + shared / f64::from(count)) / MIB)?;
    }
    Ok(sandboxes)
}

fn of_podman(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let podman = rig.podman()?;
    let mut containers = Vec::new();
    for _ in 0..COUNT {
        containers.push(podman.create("localhost/base", Network::Bridge)?);
    }
    thread::sleep(SETTLE);
    for container in &containers {
        let format = "{{.State.Pid}} {{.State.ConmonPid}}";
        let done = podman.run(&["podman", "inspect", "--format", format, container])?;
        let pids: Vec<u32> =
            done.stdout.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [process, monitor] = pids[..] else { anyhow::bail!("not two ids: {}", done.stdout) };
        let all = proportional(process)? + kernel(process)? + proportional(monitor)?;
        recorder.sample("memory", "podman, sleep and conmon", all / MIB)?;
    }
    containers.iter().try_for_each(|container| podman.remove(container))
}

fn of_runc(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let (runc, bundle) = (rig.runc(), rig.bundle()?);
    let mut ids = Vec::new();
    for _ in 0..COUNT {
        ids.push(runc.start(bundle)?.0);
    }
    thread::sleep(SETTLE);
    for id in &ids {
        let state = runc.state(id)?;
        let process = state["pid"].as_u64().context("no process id")? as u32;
        let all = proportional(process)? + kernel(process)?;
        recorder.sample("memory", "runc, sleep alone", all / MIB)?;
    }
    ids.iter().try_for_each(|id| runc.remove(id))
}

/// The proportional set size of a process, in bytes.
fn proportional(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}

/// The kernel memory that is charged to the control group of a process, in bytes.
fn kernel(pid: u32) -> Result<f64> {
    let group = group(pid)?;
    let file = group.join("memory.kmem.usage_in_bytes");
    if file.exists() {
        let text = fs::read_to_string(&file)
            .with_context(|| format!("could not read {}", file.display()))?;
        return Ok(text.trim().parse()?);
    }
    let text = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let bytes = text.lines().find_map(|line| line.strip_prefix("kernel "));
    Ok(bytes.context("the control group does not tell its kernel memory")?.parse()?)
}

/// All processes in the control group of one, and in groups below.
fn members(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut queue = vec![group(pid)?];
    while let Some(group) = queue.pop() {
        let text = fs::read_to_string(group.join("cgroup.procs"))?;
        found.extend(text.lines().map(str::parse).collect::<Result<Vec<u32>, _>>()?);
        for entry in fs::read_dir(&group)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                queue.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// The directory of the control group that counts the memory of a process.
fn group(pid: u32) -> Result<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let place = |wanted: &str| {
        groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            (controllers == wanted).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    match (place("memory"), place("")) {
        (Some(path), _) => Ok(root.join("memory").join(path)),
        (None, Some(path)) => Ok(root.join(path)),
        (None, None) => anyhow::bail!("process {pid} is in no memory control group"),
    }
}

/// All processes below one.
fn descendants(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut queue = vec![pid];
    while let Some(parent) = queue.pop() {
        for task in fs::read_dir(format!("/proc/{parent}/task"))? {
            let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                let child = child.parse()?;
                found.push(child);
                queue.push(child);
            }
        }
    }
    Ok(found)
}
