//! The life of a sandbox: what survives, and what is left when it is gone.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::daemon::{Daemon, eventually, signal};
use crate::fixture::{busybox, template};

fn status(kiln: &Daemon, name: &str) -> Value {
    let sandboxes = kiln.json(&["ps"]);
    let found = sandboxes.as_array().unwrap().iter().find(|sandbox| sandbox["name"] == name);
    found.cloned().unwrap_or(Value::Null)
}

/// The catalog as it is built in: whichever of its sources can be reached here.
#[test]
fn s0_2_a_sandbox_by_image_id_alone() {
    let kiln = Daemon::start();
    let id = kiln.ok(&["create", "debian-12"]);
    assert!(id.starts_with("sbx_"), "{id}");
    let release = kiln.ok(&["exec", &id, "--", "cat", "/etc/debian_version"]);
    assert!(release.starts_with("12."), "{release}");
    // The base is there now: the next one does not wait for it, and is the same.
    let again = kiln.ok(&["create", "debian-12"]);
    let digests: Vec<_> = kiln
        .json(&["ps"])
        .as_array()
        .unwrap()
        .iter()
        .map(|sandbox| sandbox["image_digest"].clone())
        .collect();
    assert_eq!((digests.len(), &digests[0]), (2, &digests[1]));
    assert_eq!(kiln.ok(&["exec", &again, "--", "cat", "/etc/debian_version"]), release);
}

#[test]
fn s0_3_disk_survives_stop_crash_and_reboot() {
    let mut kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "keep"]);
    kiln.ok(&["exec", "keep", "--", "sh", "-c", "echo 1 > /root/one; rm /etc/group; mkdir /new"]);

    kiln.ok(&["stop", "keep"]);
    assert_eq!(status(&kiln, "keep")["status"], "stopped");
    let refused = kiln.run(&["exec", "keep", "--", "true"]);
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(refused.stderr.contains("kiln start"), "{refused}");
    kiln.ok(&["start", "keep"]);
    let check = "cat /root/one; test ! -e /etc/group && test -d /new && echo whole";
    assert_eq!(kiln.ok(&["exec", "keep", "--", "sh", "-c", check]), "1\nwhole");

    // A crash of the daemon: the sandbox runs on, with what runs in it.
    let counter = "i=0; while :; do i=$((i+1)); echo $i > /root/count; sleep 0.02; done";
    let background = format!("({counter}) </dev/null >/dev/null 2>&1 & echo $!");
    let counter = kiln.ok(&["exec", "keep", "--", "sh", "-c", &background]);
    kiln.kill();
    kiln.serve();
    let sandbox = status(&kiln, "keep");
    assert_eq!(sandbox["status"], "running", "{sandbox}");
    let count = || kiln.ok(&["exec", "keep", "--", "cat", "/root/count"]);
    let before = count();
    eventually("the counter goes on", || (count() != before).then_some(()));
    let alive = format!("kill -0 {counter} && echo alive");
    assert_eq!(kiln.ok(&["exec", "keep", "--", "sh", "-c", &alive]), "alive");

    // A reboot of the host: daemon and sandbox are gone at once, the disk is not.
    let init = init_of(&kiln, sandbox["id"].as_str().unwrap());
    kiln.kill();
    signal(init, "KILL");
    eventually("its PID 1 is gone", || (!running(init)).then_some(()));
    kiln.serve();
    let sandbox = status(&kiln, "keep");
    assert_eq!(sandbox["status"], "stopped", "{sandbox}");
    assert!(sandbox["reason"].is_string(), "{sandbox}");
    kiln.ok(&["start", "keep"]);
    assert_eq!(kiln.ok(&["exec", "keep", "--", "sh", "-c", check]), "1\nwhole");

    kiln.ok(&["rm", "-f", "keep"]);
    assert_eq!(status(&kiln, "keep"), Value::Null);
}

#[test]
fn an_orderly_end_of_the_daemon_leaves_sandboxes_running() {
    let mut kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "stays"]);
    kiln.ok(&["exec", "stays", "--", "sh", "-c", "echo here > /tmp/mark"]);
    let init = init_of(&kiln, status(&kiln, "stays")["id"].as_str().unwrap());
    kiln.terminate();
    assert!(running(init), "the sandbox ended with the daemon");
    kiln.serve();
    assert_eq!(status(&kiln, "stays")["status"], "running");
    assert_eq!(kiln.ok(&["exec", "stays", "--", "cat", "/tmp/mark"]), "here");
}

#[test]
fn a_daemon_without_sandboxes_leaves_the_host_as_it_was() {
    let mut kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "one"]);
    let held = Held::by(&kiln);
    assert!(!held.groups.is_empty() && !held.interfaces.is_empty(), "{held:?}");

    // A sandbox is left, if only its disk: its addresses and ids stay the daemon's.
    kiln.ok(&["stop", "one"]);
    kiln.terminate();
    assert_eq!(claim_of(&kiln), Some(held.block));
    assert!(table_of(held.block) == held.table && held.groups_left() > 0, "{held:?}");
    kiln.serve();
    kiln.ok(&["start", "one"]);
    assert_eq!(kiln.ok(&["exec", "one", "--", "echo", "same"]), "same");
    let held = Held::by(&kiln);

    kiln.ok(&["rm", "-f", "one"]);
    kiln.terminate();
    assert_eq!(claim_of(&kiln), None);
    assert_ne!(table_of(held.block), held.table, "its nftables table is left");
    assert_eq!(held.groups_left(), 0, "control groups are left");
    assert_eq!(held.interfaces_left(), 0, "interfaces are left");
    // And nothing is missing when it comes back.
    kiln.serve();
    kiln.ok(&["create", "box", "--name", "two"]);
    assert_eq!(kiln.ok(&["exec", "two", "--", "echo", "again"]), "again");
}

/// What a daemon holds on the host, each with a mark that tells it from what another daemon makes
/// under the same name as soon as it is free.
#[derive(Debug)]
struct Held {
    block: u8,
    /// The handle of its nftables table.
    table: Option<u64>,
    /// Its control group in each hierarchy, with the inode.
    groups: Vec<(PathBuf, u64)>,
    /// Its network interfaces' indexes.
    interfaces: Vec<String>,
}

impl Held {
    fn by(kiln: &Daemon) -> Self {
        let block = claim_of(kiln).expect("it has a share of the host");
        let table = table_of(block);
        assert!(table.is_some(), "it has no nftables table");
        let root = Path::new("/sys/fs/cgroup");
        let mut groups = Vec::new();
        for directory in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
            groups.push(directory.join(format!("kiln-{block}")));
        }
        groups.push(root.join(format!("kiln-{block}")));
        let groups = groups
            .into_iter()
            .filter_map(|path| Some((path.clone(), fs::metadata(path).ok()?.ino())))
            .collect();
        Self { block, table, groups, interfaces: interfaces_of(block) }
    }

    fn groups_left(&self) -> usize {
        let same = |(path, inode): &&(PathBuf, u64)| {
            fs::metadata(path).is_ok_and(|found| found.ino() == *inode)
        };
        self.groups.iter().filter(same).count()
    }

    fn interfaces_left(&self) -> usize {
        let now = interfaces_of(self.block);
        self.interfaces.iter().filter(|index| now.contains(index)).count()
    }
}

/// The number of a daemon's share of the host.
fn claim_of(kiln: &Daemon) -> Option<u8> {
    let data = kiln.data().canonicalize().unwrap();
    (0..=u8::MAX).find(|number| {
        fs::read(format!("/run/kiln/{number}"))
            .is_ok_and(|owner| owner == data.as_os_str().as_encoded_bytes())
    })
}

fn table_of(block: u8) -> Option<u64> {
    let output = Command::new("nft").args(["-j", "list", "tables"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let listing: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = format!("kiln{block}");
    let mut tables = listing["nftables"].as_array().unwrap().iter().map(|object| &object["table"]);
    tables.find(|table| table["name"] == name)?["handle"].as_u64()
}

fn interfaces_of(block: u8) -> Vec<String> {
    let prefix = format!("kiln{block}s");
    fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .filter_map(|entry| fs::read_to_string(entry.path().join("ifindex")).ok())
        .collect()
}

/// The host's process id of a sandbox's PID 1: the agent that listens on the sandbox's socket.
fn init_of(kiln: &Daemon, id: &str) -> u32 {
    // The state file that adoption reads names it.
    let state = kiln.data().join("run").join(id);
    for entry in fs::read_dir(&state).unwrap_or_else(|error| panic!("{}: {error}", state.display()))
    {
        let path = entry.unwrap().path();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
        if let Some(pid) = value["pid"].as_u64() {
            return u32::try_from(pid).unwrap();
        }
    }
    panic!("no pid under {}", state.display());
}

fn running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    !matches!(state, None | Some("Z" | "X"))
}

#[test]
fn a_sandbox_that_ends_by_itself_is_stopped_with_a_reason() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "victim", "--memory", "64"]);
    let init = init_of(&kiln, status(&kiln, "victim")["id"].as_str().unwrap());
    signal(init, "KILL");
    let sandbox = eventually("it is seen as stopped", || {
        let sandbox = status(&kiln, "victim");
        (sandbox["status"] == "stopped").then_some(sandbox)
    });
    assert!(sandbox["reason"].is_string(), "{sandbox}");
    kiln.ok(&["start", "victim"]);
    assert_eq!(kiln.ok(&["exec", "victim", "--", "echo", "again"]), "again");
}

#[test]
fn limits_hold() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "small", "--memory", "64", "--pids", "20"]);
    let eat = "head -c 200000000 /dev/zero | tail -c 150000000 | wc -c";
    let outcome = kiln.run(&["exec", "small", "--", "sh", "-c", eat]);
    assert!(!outcome.stdout.contains("150000000"), "{outcome}");
    let fork = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done 2>&1; jobs | wc -l";
    let outcome = kiln.run(&["exec", "small", "--", "sh", "-c", fork]);
    assert!(outcome.stdout.contains("fork") || outcome.stderr.contains("fork"), "{outcome}");
    assert_eq!(kiln.ok(&["exec", "small", "--", "echo", "alive"]), "alive");
}

#[test]
fn heavy_fifty_sandboxes_live_at_once_and_answer() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    let creates: Vec<_> = (0..50)
        .map(|n| {
            kiln.command(&["create", "box", "--name", &format!("n{n}")])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in creates {
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}\n{}", kiln.log());
    }
    let sandboxes = kiln.json(&["ps"]);
    let sandboxes = sandboxes.as_array().unwrap();
    assert_eq!(sandboxes.len(), 50);
    assert!(sandboxes.iter().all(|sandbox| sandbox["status"] == "running"), "{sandboxes:?}");
    let mut addresses: Vec<_> = sandboxes.iter().map(|s| s["address"].to_string()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 50, "addresses are shared");
    for n in 0..50 {
        let name = format!("n{n}");
        assert_eq!(kiln.ok(&["exec", &name, "--", "sh", "-c", "echo $((6 * 7))"]), "42");
    }
    for n in 0..50 {
        kiln.ok(&["rm", "-f", &format!("n{n}")]);
    }
    assert_eq!(kiln.json(&["ps"]), json!([]));
    let uppers = fs::read_dir(kiln.data().join("uppers")).map_or(0, Iterator::count);
    assert_eq!(uppers, 0, "uppers were left");
}

#[test]
fn names_and_states_are_checked() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "one"]);
    let taken = kiln.run(&["create", "box", "--name", "one"]);
    assert_eq!(taken.code, Some(1), "{taken}");
    assert!(taken.stderr.contains("one"), "{taken}");
    let runs = kiln.run(&["rm", "one"]);
    assert_eq!(runs.code, Some(1), "{runs}");
    assert!(runs.stderr.contains("--force") || runs.stderr.contains("kiln stop"), "{runs}");
    let used = kiln.run(&["rmi", "box"]);
    assert_eq!(used.code, Some(1), "{used}");
    kiln.ok(&["stop", "one"]);
    kiln.ok(&["rm", "one"]);
    kiln.ok(&["rmi", "box"]);
    let gone = kiln.run(&["create", "box"]);
    assert!(gone.code == Some(1) && gone.stderr.contains("box"), "{gone}");
}
