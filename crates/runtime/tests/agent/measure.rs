//! Numbers: printed for people, and held to limits that only a fault exceeds.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::guest::{Guest, LIMIT, command, until};

const RUNS: usize = 200;
const AGENTS: usize = 10;
/// Idle memory of an agent, with what it shares with the others divided by their number.
const LARGEST_KIB: u64 = 1024;

/// A line of the process's memory account: `Pss`, or `Pss_Anon`, which no other process shares.
fn memory_kib(pid: u32, name: &str) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let mut lines = rollup.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| *found == name).unwrap();
    value.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn exec_is_fast() {
    let guest = Guest::start().await;
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let before = Instant::now();
        let output = guest.agent.run(command(&["/bin/true"]), Bytes::new(), 0).await.unwrap();
        times.push(before.elapsed());
        assert_eq!(output.status.code, 0);
    }
    times.sort();
    let (median, late) = (times[RUNS / 2], times[RUNS * 99 / 100]);
    eprintln!("exec of /bin/true: median {median:?}, p99 {late:?}, n={RUNS}");
    assert!(median < Duration::from_millis(50), "{median:?}");
}

#[tokio::test]
async fn idle_agents_are_small_before_and_after_work() {
    let mut guests = Vec::new();
    for _ in 0..AGENTS {
        guests.push(Guest::start().await);
    }
    let mean = |name| {
        guests.iter().map(|guest| memory_kib(guest.pid(), name)).sum::<u64>() / AGENTS as u64
    };
    let (fresh, own) = (mean("Pss"), mean("Pss_Anon"));
    for guest in &guests {
        let much = command(&["head", "-c", "5000000", "/dev/zero"]);
        guest.agent.run(much, Bytes::new(), LIMIT).await.unwrap();
        let files = guest.agent.list("/", "/proc/self").await.unwrap();
        assert!(!files.is_empty());
    }
    // File threads end and memory goes back a moment after the last work.
    let worked = until("they are small again", async || {
        let size = mean("Pss");
        (size < LARGEST_KIB).then_some(size)
    })
    .await;
    eprintln!(
        "{AGENTS} idle agents, mean of each: {fresh} KiB PSS ({own} KiB its own) fresh, \
         {worked} KiB ({} KiB) after work",
        mean("Pss_Anon")
    );
    assert!(fresh < LARGEST_KIB, "{fresh} KiB");
}
