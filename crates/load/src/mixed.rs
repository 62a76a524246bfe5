//! Many clients that do everything at the same time: no error.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::join_all;
use kiln_client::ClientError;

use crate::census::Census;
use crate::daemon::Daemon;
use crate::operations::{OPERATIONS, Worker};

/// How many clients there are.
const CLIENTS: usize = 16;

/// What happened, by operation.
#[derive(Default)]
struct Tally {
    done: BTreeMap<&'static str, usize>,
    errors: Vec<String>,
}

pub(crate) async fn run(daemon: &Daemon, time: Duration, seed: u64) -> Result<()> {
    // Pulls and builds leave what they are for: each once before the count.
    let mut first = Worker::new(daemon, CLIENTS, seed);
    for name in OPERATIONS {
        first.run(name).await?;
    }
    first.end().await?;
    let before = Census::at_rest(daemon).await;
    let deadline = Instant::now() + time;
    let tallies = (0..CLIENTS).map(|number| client(daemon, number, seed, deadline));
    let tallies = join_all(tallies).await;
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    let mut errors = Vec::new();
    for tally in tallies {
        for (name, count) in tally.done {
            *done.entry(name).or_default() += count;
        }
        errors.extend(tally.errors);
    }
    let all: usize = done.values().sum();
    let each: Vec<String> = done.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!(
        "mixed    {CLIENTS} clients for {time:?} (seed {seed}): {all} operations, {} errors",
        errors.len()
    );
    println!("         {}", each.join(", "));
    if let Some(first) = errors.first() {
        bail!("{} operations failed, the first: {first}", errors.len());
    }
    let after = Census::settled(daemon, &before).await?;
    println!("         after: {after}");
    Ok(())
}

async fn client(daemon: &Daemon, number: usize, seed: u64, deadline: Instant) -> Tally {
    let mut tally = Tally::default();
    let mut worker = Worker::new(daemon, number, seed);
    while Instant::now() < deadline {
        let name = worker.choose();
        match worker.run(name).await {
            Ok(()) => *tally.done.entry(name).or_default() += 1,
            Err(error) => tally.errors.push(format!("client {number}, {name}: {}", text(&error))),
        }
    }
    if let Err(error) = worker.end().await {
        tally.errors.push(format!("client {number}, end: {}", text(&error)));
    }
    tally
}

fn text(error: &anyhow::Error) -> String {
    let code = error.downcast_ref::<ClientError>().and_then(ClientError::code);
    format!("{error:#} {}", code.map(|code| format!("({code:?})")).unwrap_or_default())
}
