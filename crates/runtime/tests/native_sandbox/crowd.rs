//! Many sandboxes, and how long things take.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kiln_runtime::Runtime as _;

use super::crash::{children_named, wait_gone};
use super::lab::{Lab, create, eventually, privileged, sh, spec};
use super::refusals::assert_clean;

const CROWD: usize = 50;

#[test]
fn fifty_start_at_once_and_leave_nothing() {
    if !privileged() {
        return;
    }
    let lab = Lab::with(|config| config.pool = 2);
    let specs: Vec<_> = (0..CROWD).map(|_| spec()).collect();
    let disks: Vec<_> = (0..CROWD).map(|_| lab.place.disk()).collect();
    lab.tokio.block_on(async {
        let start = Instant::now();
        let starts =
            specs.iter().zip(disks).map(|(spec, disk)| create(&lab.runtime, spec.clone(), disk));
        let running: Vec<_> = join_all(starts).await.into_iter().map(Result::unwrap).collect();
        println!("{CROWD} sandboxes at once: {:?}", start.elapsed());
        let outputs = running.iter().map(|running| sh(running, "echo $$ > /tmp/pid; hostname"));
        for output in join_all(outputs).await {
            assert_eq!(output.ok(), "workbench");
        }
        let mut memory = 0;
        for spec in &specs {
            memory += lab.runtime.memory_usage(spec.id).await.unwrap();
        }
        println!("memory of a sandbox's group: {} KiB", memory / CROWD as u64 / 1024);
        let start = Instant::now();
        let stops = specs.iter().map(|spec| lab.runtime.stop(spec.id, Duration::from_secs(5)));
        for stopped in join_all(stops).await {
            stopped.unwrap();
        }
        println!("{CROWD} sandboxes stopped: {:?}", start.elapsed());
    });
    eventually("a full pool", || lab.runtime.prepared() == 2);
    // Slots of sandboxes that were stopped belong to their disks.
    for spec in 0..CROWD {
        lab.slots.released.lock().unwrap().push(kiln_runtime::Slot(10_000 + spec as u32));
    }
    assert_clean(&lab);
    let agents = children_named(std::process::id(), "agent");
    assert!(agents.is_empty(), "{agents:?}");
}

#[test]
fn a_start_is_quick() {
    if !privileged() {
        return;
    }
    const ROUNDS: usize = 50;
    let lab = Lab::with(|config| config.pool = 2);
    let (mut starts, mut execs, mut stops) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        eventually("a full pool", || lab.runtime.prepared() == 2);
        let (spec, disk) = (spec(), lab.place.disk());
        let id = spec.id;
        lab.tokio.block_on(async {
            let start = Instant::now();
            let running = create(&lab.runtime, spec, disk).await.unwrap();
            running.agent.ping().await.unwrap();
            starts.push(start.elapsed());
            let start = Instant::now();
            sh(&running, "exit 0").await.ok();
            execs.push(start.elapsed());
            let start = Instant::now();
            lab.runtime.stop(id, Duration::ZERO).await.unwrap();
            stops.push(start.elapsed());
        });
    }
    for (name, times) in [("start to ping", starts), ("first exec", execs), ("stop", stops)] {
        report(name, times);
    }
    let times = lab.sandbox(async |running| {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            sh(running, "exit 0").await.ok();
            times.push(start.elapsed());
        }
        times
    });
    let median = report("exec", times);
    assert!(median < Duration::from_millis(250), "an exec takes {median:?}");
}

#[test]
fn a_pool_heals_and_gives_back() {
    if !privileged() {
        return;
    }
    let lab = Lab::with(|config| config.pool = 2);
    eventually("a full pool", || lab.runtime.prepared() == 2);
    let launcher = children_named(std::process::id(), "kiln-launcher")[0];
    for parked in children_named(launcher.as_raw_nonzero().get() as u32, "kiln-parked") {
        rustix::process::kill_process(parked, rustix::process::Signal::KILL).unwrap();
        wait_gone(parked);
    }
    let slot = lab.sandbox(async |running| {
        assert_eq!(sh(running, "echo works").await.ok(), "works");
        running.slot
    });
    lab.slots.released.lock().unwrap().push(slot);
    eventually("a full pool", || lab.runtime.prepared() == 2);
    lab.tokio.block_on(lab.runtime.shutdown());
    assert_eq!(lab.runtime.prepared(), 0);
    assert_clean(&lab);
    lab.sandbox(async |running| {
        assert_eq!(sh(running, "echo works without").await.ok(), "works without");
    });
}

#[test]
fn an_abandoned_start_leaves_no_half_sandbox() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for millis in 0..12 {
        let spec = spec();
        let id = spec.id;
        lab.tokio.block_on(async {
            let start = create(&lab.runtime, spec.clone(), lab.place.disk());
            let patience = Duration::from_millis(millis);
            let abandoned = tokio::time::timeout(patience, start).await;
            // Whether it has started or not: it can be stopped, and then it is gone.
            lab.runtime.stop(id, Duration::ZERO).await.unwrap();
            assert!(lab.runtime.adopt(spec).await.unwrap().is_none(), "{abandoned:?}");
        });
        super::refusals::assert_nothing_runs(&lab);
    }
}

/// Prints the median and the worst.
fn report(name: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let median = times[times.len() / 2];
    println!("{name}: median {median:?}, worst {:?}, n {}", times[times.len() - 1], times.len());
    median
}
