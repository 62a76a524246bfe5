//! Many sandboxes at once: all answer, all go.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use kiln_types::api::{CreateSandbox, ExecRequest, ResourceLimits};

use crate::census::{self, Census};
use crate::daemon::{Daemon, IMAGE};

/// Some at once, without a look at what is left.
pub(crate) async fn warm_up(daemon: &Daemon, count: usize) -> Result<()> {
    let create = CreateSandbox { image: IMAGE.to_owned(), ..CreateSandbox::default() };
    let made = try_join_all((0..count).map(|_| daemon.client.create_sandbox(&create))).await?;
    for sandbox in made {
        daemon.client.remove_sandbox(&sandbox.id.to_string(), true).await?;
    }
    Ok(())
}

pub(crate) async fn run(daemon: &Daemon, count: usize) -> Result<()> {
    let before = Census::at_rest(daemon).await;
    let used = census::memory(daemon);
    let begun = Instant::now();
    let limits = ResourceLimits {
        memory_mib: Some(64),
        pids: Some(32),
        vcpu: Some(1),
        ..ResourceLimits::default()
    };
    let made = (0..count).map(|number| {
        let create = CreateSandbox {
            image: IMAGE.to_owned(),
            name: Some(format!("burst-{number}")),
            limits,
            ..CreateSandbox::default()
        };
        async move { daemon.client.create_sandbox(&create).await }
    });
    let made = try_join_all(made).await.context("a sandbox was not made")?;
    let created = begun.elapsed();
    // What they cost when nothing happens in them.
    let used = census::memory(daemon).saturating_sub(used);
    let begun = Instant::now();
    try_join_all(made.iter().enumerate().map(async |(number, sandbox)| {
        let argv = ["echo", &format!("I am {number}")].map(str::to_owned).to_vec();
        let request = ExecRequest { argv, ..ExecRequest::default() };
        let result = daemon.client.exec(&sandbox.id.to_string(), &request).await?;
        ensure!(result.stdout == format!("I am {number}\n"), "{number}: {result:?}");
        Ok(())
    }))
    .await?;
    let answered = begun.elapsed();
    let mut addresses: Vec<_> = made.iter().filter_map(|made| made.address.clone()).collect();
    addresses.sort();
    addresses.dedup();
    ensure!(addresses.len() == count, "{} addresses for {count} sandboxes", addresses.len());
    let begun = Instant::now();
    try_join_all(made.iter().map(|made| {
        let id = made.id.to_string();
        async move { daemon.client.remove_sandbox(&id, true).await }
    }))
    .await
    .context("a sandbox was not removed")?;
    let removed = begun.elapsed();
    let after = Census::settled(daemon, &before).await?;
    println!(
        "burst    {count} sandboxes at once: made in {created:.1?}, all answered an exec in \
         {answered:.1?}, removed in {removed:.1?}; {} KiB of memory each in its control group",
        (used >> 10) / count as u64
    );
    println!("         after: {after}");
    Ok(())
}
