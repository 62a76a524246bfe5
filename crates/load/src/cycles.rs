//! Create, exec, remove, one after the other: nothing is left, nothing grows.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kiln_types::api::{CreateSandbox, ExecRequest};

use crate::census::Census;
use crate::daemon::{Daemon, IMAGE};

/// How much larger the daemon may have become, in KiB: far less than a leak of every cycle makes.
const GROWTH: u64 = 48 << 10;

pub(crate) async fn run(daemon: &Daemon, count: usize, name: &str) -> Result<()> {
    let before = Census::at_rest(daemon).await;
    let mut times = Vec::with_capacity(count);
    let part = (count / 10).max(1);
    let begun = Instant::now();
    for number in 0..count {
        let begun = Instant::now();
        cycle(daemon, number).await?;
        times.push(begun.elapsed());
        if name == "cycles" && (number + 1) % part == 0 {
            let now = Census::take(daemon);
            let median = median(&times[number + 1 - part..]);
            println!("         {:>6} cycles, median {median:.1?}: {now}", number + 1);
        }
    }
    let after =
        if name == "cycles" { Census::settled(daemon, &before).await? } else { before.clone() };
    let (first, last) = (median(&times[..part]), median(&times[count - part..]));
    println!(
        "{name:<8} {count} of create, exec, remove in {:.1?}: median {:.1?}, first tenth {first:.1?}, \
         last tenth {last:.1?}, ratio {:.2}; rss {} -> {} MiB, database {} -> {} KiB",
        begun.elapsed(),
        median(&times),
        last.as_secs_f64() / first.as_secs_f64(),
        before.rss >> 10,
        after.rss >> 10,
        before.database >> 10,
        after.database >> 10,
    );
    ensure!(
        name != "cycles" || after.rss < before.rss + GROWTH,
        "the daemon grew from {} to {} KiB",
        before.rss,
        after.rss
    );
    Ok(())
}

async fn cycle(daemon: &Daemon, number: usize) -> Result<()> {
    let create = CreateSandbox { image: IMAGE.to_owned(), ..CreateSandbox::default() };
    let sandbox = daemon.client.create_sandbox(&create).await?.id.to_string();
    let argv = ["echo", &number.to_string()].map(str::to_owned).to_vec();
    let request = ExecRequest { argv, ..ExecRequest::default() };
    let result = daemon.client.exec(&sandbox, &request).await?;
    ensure!(result.stdout == format!("{number}\n"), "cycle {number}: {result:?}");
    daemon.client.remove_sandbox(&sandbox, true).await?;
    Ok(())
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
