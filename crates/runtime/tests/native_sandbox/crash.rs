//! The daemon ends without a word.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiln_runtime::{Launcher, NativeRuntime, Runtime as _, SandboxSpec};
use kiln_types::SandboxId;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::lab::{Counter, Lab, Place, create, eventually, privileged, sh, spec, state_of};

const DIRECTORY: &str = "KILN_TEST_DAEMON_DIRECTORY";

/// The daemon that is killed, where this process is meant to be it: starts two sandboxes, says which, and
/// waits for its end.
fn be_the_daemon() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let launcher = Launcher::start().unwrap();
    let place = Place::at(directory.into());
    let mut config = place.config();
    config.pool = 2;
    let tokio = tokio::runtime::Runtime::new().unwrap();
    tokio.block_on(async {
        let slots = std::sync::Arc::<Counter>::default();
        let runtime = NativeRuntime::new(config, launcher, slots).await.unwrap();
        let (one, two) = (spec(), spec());
        for spec in [&one, &two] {
            let running = create(&runtime, spec.clone(), place.disk()).await.unwrap();
            sh(&running, "echo here > /tmp/mark; echo shm > /dev/shm/mark").await.ok();
        }
        while runtime.prepared() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        runtime.freeze(two.id).await.unwrap();
        println!("READY {} {}", one.id, two.id);
        std::future::pending::<()>().await;
    });
}

struct Victim {
    process: Child,
    sandboxes: Vec<SandboxId>,
}

/// Runs the test named `test` once more, as the daemon.
fn start(place: &Place, test: &str) -> Victim {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("crash::{test}"), "--nocapture"])
        .env(DIRECTORY, place.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let ready = loop {
        let line = lines.next().expect("the daemon starts").unwrap();
        if let Some((_, ready)) = line.split_once("READY ") {
            break ready.to_owned();
        }
    };
    let sandboxes = ready.split(' ').map(|id| id.parse().unwrap()).collect();
    Victim { process, sandboxes }
}

#[test]
fn sandboxes_survive_and_are_adopted() {
    if !privileged() {
        return;
    }
    be_the_daemon();
    let place = Place::new();
    let mut victim = start(&place, "sandboxes_survive_and_are_adopted");
    let daemon = victim.process.id();
    let launchers = children_named(daemon, "kiln-launcher");
    assert_eq!(launchers.len(), 1);
    let launcher = launchers[0].as_raw_nonzero().get() as u32;
    let parked = children_named(launcher, "kiln-parked");
    assert_eq!(parked.len(), 2, "the pool");
    let agents = children_named(launcher, "agent");
    assert_eq!(agents.len(), 2, "the sandboxes");

    victim.process.kill().unwrap();
    victim.process.wait().unwrap();
    for pid in launchers.iter().chain(&parked) {
        wait_gone(*pid);
    }
    for pid in &agents {
        test_kill_process(*pid).expect("sandboxes live on");
    }

    let lab = Lab::at(place, |config| config.pool = 0);
    let [one, two] = victim.sandboxes[..] else { panic!("two sandboxes") };
    lab.tokio.block_on(async {
        lab.runtime.sweep(&[one, two]).await.unwrap();
        for id in [one, two] {
            let spec = SandboxSpec { id, ..spec() };
            let running = lab.runtime.adopt(spec).await.unwrap().expect("it runs");
            let marks = sh(&running, "cat /tmp/mark /dev/shm/mark").await.ok();
            assert_eq!(marks, "here\nshm");
            assert!(agents.iter().any(|pid| pid.as_raw_nonzero().get() as u32 == running.pid));
            assert!(running.address.is_some());
        }
        // What the pool of the dead daemon had is gone: two sandboxes, two groups, two links.
        let parent =
            std::path::Path::new("/sys/fs/cgroup/unified").join(lab.place.block.cgroup_parent());
        if let Ok(entries) = fs::read_dir(parent) {
            let groups = entries.filter(|entry| entry.as_ref().unwrap().path().is_dir());
            assert_eq!(groups.count(), 2);
        }
        lab.runtime.stop(one, Duration::from_secs(2)).await.unwrap();
        let exit = lab.runtime.adopt(SandboxSpec { id: one, ..spec() }).await.unwrap();
        assert!(exit.is_none(), "it was stopped");
        lab.runtime.stop(two, Duration::ZERO).await.unwrap();
    });
    for pid in agents {
        wait_gone(pid);
    }
    super::refusals::assert_nothing_runs(&lab);
}

#[test]
fn a_dead_or_recycled_process_is_not_adopted() {
    if !privileged() {
        return;
    }
    be_the_daemon();
    let place = Place::new();
    let mut victim = start(&place, "a_dead_or_recycled_process_is_not_adopted");
    let [one, two] = victim.sandboxes[..] else { panic!("two sandboxes") };
    victim.process.kill().unwrap();
    victim.process.wait().unwrap();
    // The number of the first is another process's by now: this one's.
    let file = state_of(&place, one).join("state.json");
    let mut record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let old = Pid::from_raw(record["pid"].as_i64().unwrap() as i32).unwrap();
    record["pid"] = std::process::id().into();
    fs::write(&file, record.to_string()).unwrap();
    // The second has ended in the meantime.
    let file = state_of(&place, two).join("state.json");
    let record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let ended = Pid::from_raw(record["pid"].as_i64().unwrap() as i32).unwrap();

    let lab = Lab::at(place, |config| config.pool = 0);
    lab.tokio.block_on(async {
        let adopted = lab.runtime.adopt(SandboxSpec { id: one, ..spec() }).await.unwrap();
        assert!(adopted.is_none(), "{adopted:?}");
        wait_gone(old);
        kill_process(ended, Signal::KILL).unwrap();
        lab.runtime.thaw(two).await.expect_err("it is not adopted");
        let adopted = lab.runtime.adopt(SandboxSpec { id: two, ..spec() }).await.unwrap();
        assert!(adopted.is_none(), "{adopted:?}");
        wait_gone(ended);
        lab.runtime.sweep(&[]).await.unwrap();
    });
    super::refusals::assert_nothing_runs(&lab);
}

/// The children of a process that have this name.
pub(crate) fn children_named(parent: u32, name: &str) -> Vec<Pid> {
    let parent = parent.to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let entry = entry.unwrap();
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        let (number, comm) = head.split_once(" (").unwrap();
        if comm == name && tail.split_whitespace().nth(1) == Some(&parent) {
            found.push(Pid::from_raw(number.parse().unwrap()).unwrap());
        }
    }
    found
}

/// Waits until a process is gone or a zombie.
pub(crate) fn wait_gone(pid: Pid) {
    eventually(&format!("the end of {pid}"), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, tail)| tail.trim_start().starts_with('Z'))
    });
}
