//! Control groups against the kernel.

#![expect(clippy::print_stdout, reason = "a test says what it skips and how long things take")]

#[path = "cgroup_real/lab.rs"]
mod lab;

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_runtime::Limits;
use kiln_runtime::cgroup::{CgroupError, Group, Mode};
use lab::{AMPLE, Lab, PATIENCE, eventually, hierarchies};

const MIB: u64 = 1 << 20;
/// A session of its own with children: what a signal to a process group does not reach.
const TREE: &str =
    "setsid sleep 1000 & setsid sh -c 'sleep 1000 & setsid sleep 1000 & wait' & wait";

#[test]
fn a_process_that_takes_too_much_memory_is_killed_and_counted() {
    for hierarchy in hierarchies() {
        let limits = Limits { memory: 48 * MIB, ..AMPLE };
        let mut lab = Lab::new(&hierarchy, "memory", limits);
        assert_eq!(lab.group.oom_kills().unwrap(), 0);
        // A line without an end is all kept in memory. The shell outlives it.
        let output = lab.output("head -c 300000000 /dev/zero | tail -n 1 | wc -c; echo alive");
        assert!(output.contains("alive") && !output.contains("300000000"), "{output}");
        assert_eq!(lab.group.oom_kills().unwrap(), 1);
        assert!(lab.group.memory_usage().unwrap() <= limits.memory);

        // Limits of a group in use go up and down.
        for memory in [400 * MIB, 64 * MIB] {
            lab.group.set_limits(&Limits { memory, ..AMPLE }).unwrap();
        }
        lab.group.set_limits(&Limits { memory: 700 * MIB, ..AMPLE }).unwrap();
        let output = lab.output("head -c 300000000 /dev/zero | tail -n 1 | wc -c");
        assert_eq!(output.trim(), "300000000");
        assert_eq!(lab.group.oom_kills().unwrap(), 1);
    }
}

#[test]
fn no_more_processes_than_allowed() {
    for hierarchy in hierarchies() {
        let mut lab = Lab::new(&hierarchy, "pids", Limits { pids: 6, ..AMPLE });
        let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; wait";
        let mut output = lab.run(script).stderr.take().unwrap();
        let mut message = String::new();
        let mut byte = [0];
        while !message.ends_with("fork") && !message.ends_with("available") {
            use std::io::Read;
            output.read_exact(&mut byte).unwrap();
            message.push(char::from(byte[0]));
        }
        assert!(lab.group.pids().unwrap().len() <= 6);
    }
}

#[test]
fn no_more_cpu_time_than_allowed() {
    for hierarchy in hierarchies() {
        let mut lab = Lab::new(&hierarchy, "cpu", Limits { vcpu: 1, ..AMPLE });
        let start = Instant::now();
        let spin = "timeout 1.2 sh -c 'while :; do :; done'";
        let output = lab.output(&format!("{spin} & {spin} & {spin} & wait; times"));
        let elapsed = start.elapsed().as_secs_f64();
        // The last line of `times`: what the children used, in user mode and in the kernel.
        let used: f64 = output.lines().last().unwrap().split_whitespace().map(seconds).sum();
        println!("{used:.2} s of CPU time in {elapsed:.2} s");
        // One period more than the quota may have been begun.
        assert!(used <= elapsed + 0.2, "{used} s of CPU time in {elapsed} s");
        assert!(used > 0.1, "{output}");
    }
}

/// `0m1.500000s`
fn seconds(text: &str) -> f64 {
    let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
    minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
}

#[test]
fn the_frozen_stand_still_until_they_are_thawed() {
    for hierarchy in hierarchies() {
        let mut lab = Lab::new(&hierarchy, "freeze", AMPLE);
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let length = || std::fs::metadata(&log).map_or(0, |file| file.len());
        let forever = format!("while :; do echo x >> {}; /bin/true; done", log.display());
        lab.run(&format!("({forever}) & setsid sh -c '{forever}' & wait"));
        eventually("it runs", || length() > 10);
        for _ in 0..3 {
            lab.group.freeze(PATIENCE).unwrap();
            lab.group.freeze(PATIENCE).unwrap();
            let before = length();
            std::thread::sleep(Duration::from_millis(60));
            assert_eq!(length(), before, "something still runs");
            lab.group.thaw(PATIENCE).unwrap();
            lab.group.thaw(PATIENCE).unwrap();
            eventually("it runs on", || length() > before + 10);
        }
    }
}

#[test]
fn a_whole_tree_is_killed_frozen_or_not() {
    for hierarchy in hierarchies() {
        for frozen in [false, true] {
            let mut lab = Lab::new(&hierarchy, "kill", AMPLE);
            lab.run(TREE);
            eventually("the tree stands", || lab.group.pids().unwrap().len() >= 5);
            let pids = lab.group.pids().unwrap();
            if frozen {
                lab.group.freeze(PATIENCE).unwrap();
            }
            let start = Instant::now();
            lab.group.kill().unwrap();
            lab.group.wait_empty(PATIENCE).unwrap();
            println!("{:?}, frozen: {frozen}: {:?}", hierarchy.mode(), start.elapsed());
            lab.reap();
            eventually("all are gone", || pids.iter().all(|pid| !runs(*pid)));
            lab.group.remove(PATIENCE).unwrap();
            lab.group.remove(PATIENCE).unwrap();
            assert!(!lab.exists("sandbox"));
        }
    }
}

/// Whether a process runs; one that nobody has reaped does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn something_that_starts_processes_all_the_time_is_killed_too() {
    for hierarchy in hierarchies() {
        let mut lab = Lab::new(&hierarchy, "bomb", AMPLE);
        // Each starts the next one and ends: no list of processes is ever true for long.
        let hop =
            "export HOP='sh -c \"$HOP\" &'; for i in 1 2 3 4 5 6 7 8; do sh -c \"$HOP\"; done";
        lab.run(hop);
        let mut seen = HashSet::new();
        eventually("it has gone on", || {
            seen.extend(lab.group.pids().unwrap());
            seen.len() > 100
        });
        lab.reap();
        lab.group.kill().unwrap();
        lab.group.wait_empty(PATIENCE).unwrap();
    }
}

#[test]
fn a_killed_group_is_not_used_again() {
    for hierarchy in hierarchies() {
        let mut lab = Lab::new(&hierarchy, "again", AMPLE);
        lab.run("sleep 1000");
        assert!(matches!(
            Group::create(&hierarchy, &lab.parent, "sandbox"),
            Err(CgroupError::Busy { pids, .. }) if !pids.is_empty()
        ));
        assert_eq!(lab.group.v2_dir().unwrap().is_some(), hierarchy.mode() != Mode::V1);
        lab.group.kill().unwrap();
        assert!(matches!(lab.group.v2_dir(), Err(CgroupError::Killed { .. })));
        let own = std::process::id();
        assert!(matches!(lab.group.add_process(own), Err(CgroupError::Killed { .. })));
        lab.group.wait_empty(PATIENCE).unwrap();
        lab.reap();

        // The name is free again, for a new group.
        let inode = || {
            use std::os::unix::fs::MetadataExt;
            let find = |mount: &str| {
                let path = Path::new(lab::ROOT).join(mount).join(&lab.parent).join("sandbox");
                std::fs::metadata(path).ok().map(|directory| directory.ino())
            };
            ["unified", "memory", ""].map(find)
        };
        let before = inode();
        lab.group = Group::create(&hierarchy, &lab.parent, "sandbox").unwrap();
        assert_ne!(inode(), before);
        lab.group.set_limits(&AMPLE).unwrap();
        assert_eq!(lab.output("echo works"), "works\n");
    }
}

#[test]
fn groups_are_listed_opened_and_removed() {
    for hierarchy in hierarchies() {
        let mut lab = Lab::new(&hierarchy, "list", AMPLE);
        let other = Group::create(&hierarchy, &lab.parent, "another").unwrap();
        assert_eq!(hierarchy.list(&lab.parent).unwrap(), ["another", "sandbox"]);
        assert_eq!(hierarchy.list("kiln-not-there").unwrap(), [""; 0]);
        lab.run("sleep 1000");

        // Another life of the daemon.
        assert!(Group::open(&hierarchy, &lab.parent, "missing").unwrap().is_none());
        let found = Group::open(&hierarchy, &lab.parent, "sandbox").unwrap().unwrap();
        assert!(!found.pids().unwrap().is_empty());
        assert!(matches!(
            found.remove(Duration::from_millis(30)),
            Err(CgroupError::Busy { pids, .. }) if !pids.is_empty()
        ));
        assert!(matches!(
            found.wait_empty(Duration::from_millis(30)),
            Err(CgroupError::Timeout { .. })
        ));
        found.kill().unwrap();
        found.wait_empty(PATIENCE).unwrap();
        found.remove(PATIENCE).unwrap();
        other.remove(PATIENCE).unwrap();
        assert_eq!(hierarchy.list(&lab.parent).unwrap(), [""; 0]);
        hierarchy.remove_parent(&lab.parent).unwrap();
        hierarchy.remove_parent(&lab.parent).unwrap();
    }
}

#[test]
fn few_devices_can_be_opened() {
    for hierarchy in hierarchies() {
        if hierarchy.mode() == Mode::V2 {
            println!("SKIP version 2 has no device controller without BPF");
            continue;
        }
        let mut lab = Lab::new(&hierarchy, "devices", AMPLE);
        let script = "head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; \
                      echo x > /dev/null && echo null; head -c 1 /dev/kmsg";
        let output = lab.output(script);
        assert!(output.starts_with("4\n4\nnull\n"), "{output}");
        assert!(output.contains("Operation not permitted"), "{output}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for hierarchy in hierarchies() {
        let lab = Lab::new(&hierarchy, "refuse", AMPLE);
        let zeros = [
            ("vcpu", Limits { vcpu: 0, ..AMPLE }),
            ("memory", Limits { memory: 0, ..AMPLE }),
            ("pids", Limits { pids: 0, ..AMPLE }),
        ];
        for (field, limits) in zeros {
            let error = lab.group.set_limits(&limits).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        for name in ["", ".", "..", "a/b", "/etc", "a\nb"] {
            let error = Group::create(&hierarchy, &lab.parent, name).unwrap_err();
            assert!(matches!(error, CgroupError::Name { .. }), "{name:?}: {error}");
            assert!(hierarchy.list(name).is_err(), "{name:?}");
        }
        // No such process, and no trace of one.
        lab.group.add_process(u32::MAX >> 2).unwrap_err();
    }
}

#[test]
fn a_life_takes_a_few_milliseconds() {
    const ROUNDS: usize = 30;
    for hierarchy in hierarchies() {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let mut lab = Lab::new(&hierarchy, "life", AMPLE);
            times[0].push(start.elapsed());
            lab.run("sleep 1000");
            let start = Instant::now();
            lab.group.kill().unwrap();
            lab.group.wait_empty(PATIENCE).unwrap();
            times[1].push(start.elapsed());
            let start = Instant::now();
            lab.group.remove(PATIENCE).unwrap();
            times[2].push(start.elapsed());
        }
        for (name, times) in ["make and limit", "kill", "remove"].iter().zip(&mut times) {
            times.sort();
            let (middle, most) = (times[ROUNDS / 2], times[ROUNDS - 1]);
            println!("{:?}: {name}: p50 {middle:?}, max {most:?}, n={ROUNDS}", hierarchy.mode());
            // The bound only catches a wait that should not be there.
            assert!(middle < Duration::from_millis(500), "{name}: {times:?}");
        }
    }
}

#[test]
fn pure_version_2_hosts() {
    let found = hierarchies();
    if found.first().is_none_or(|hierarchy| hierarchy.mode() != Mode::V2) {
        println!("SKIP this host has version 1 controllers; see cgroup_recorded for version 2");
        return;
    }
    let lab = Lab::new(&found[0], "v2", Limits { vcpu: 2, memory: 64 * MIB, pids: 9 });
    let path = Path::new(lab::ROOT).join(&lab.parent).join("sandbox");
    for (file, expected) in
        [("memory.max", "67108864\n"), ("pids.max", "9\n"), ("cpu.max", "200000 100000\n")]
    {
        assert_eq!(std::fs::read_to_string(path.join(file)).unwrap(), expected);
    }
}
