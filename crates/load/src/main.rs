//! Load on one daemon, and whether anything is left of it: `cargo xtask load`.
//!
//! Owns: a daemon on a fresh data directory, three loads on it (many sandboxes at once, many cycles one
//! after the other, many clients that do everything), and the census of what the daemon holds on the
//! host, which must be the same after each load as before it. Refuses: to judge by the clock. Times are
//! printed; only errors and what is left behind make it fail.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a task talks to the person who runs it")]

mod burst;
mod census;
mod cycles;
mod daemon;
mod mixed;
mod operations;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use daemon::Daemon;

const USAGE: &str = "kiln-load --kiln PROGRAM [--quick] [--only burst|cycles|mixed] [--seed N]";

/// How much of each load there is.
#[derive(Clone, Copy, Debug)]
struct Size {
    sandboxes: usize,
    cycles: usize,
    warm_up: usize,
    mixed: Duration,
}

const QUICK: Size = Size { sandboxes: 20, cycles: 100, warm_up: 20, mixed: Duration::from_secs(5) };
const FULL: Size =
    Size { sandboxes: 200, cycles: 10_000, warm_up: 100, mixed: Duration::from_mins(1) };

struct Arguments {
    kiln: PathBuf,
    size: Size,
    only: Option<String>,
    seed: u64,
}

fn arguments() -> Result<Arguments> {
    let mut kiln = None;
    let (mut size, mut only, mut seed) = (FULL, None, 1);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value; {USAGE}"));
        match word.as_str() {
            "--kiln" => kiln = Some(PathBuf::from(value()?)),
            "--quick" => size = QUICK,
            "--only" => only = Some(value()?),
            "--seed" => seed = value()?.parse().context("--seed is not a number")?,
            other => bail!("`{other}` is no option; {USAGE}"),
        }
    }
    if let Some(name) = &only
        && !["burst", "cycles", "mixed"].contains(&name.as_str())
    {
        bail!("`{name}` is no load; {USAGE}");
    }
    Ok(Arguments { kiln: kiln.context(USAGE)?, size, only, seed })
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<()> {
    let daemon = Daemon::start(&arguments.kiln).await?;
    let result = loads(arguments, &daemon).await;
    if result.is_err() {
        daemon.show_log();
    }
    let ended = daemon.end().await;
    result.and(ended)
}

async fn loads(arguments: &Arguments, daemon: &Daemon) -> Result<()> {
    let wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
    let size = arguments.size;
    // What is made at the first use is no leak.
    burst::warm_up(daemon, size.warm_up).await?;
    cycles::run(daemon, size.warm_up, "warm-up").await?;
    if wanted("burst") {
        burst::run(daemon, size.sandboxes).await?;
    }
    if wanted("cycles") {
        cycles::run(daemon, size.cycles, "cycles").await?;
    }
    if wanted("mixed") {
        mixed::run(daemon, size.mixed, arguments.seed).await?;
    }
    Ok(())
}
