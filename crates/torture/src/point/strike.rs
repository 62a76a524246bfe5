//! Killing one process in the middle of an operation, and removing on a full disk.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::collect::{Collection, Much, Said};
use crate::daemon::signal;
use crate::epoch::Epoch;
use crate::fault::Victim;
use crate::host;
use crate::operation::{Operation, Outcome};
use crate::plan::Plan;
use crate::rng::Rng;

/// Kills `victim` after so many thousandths of what the operation usually takes. Gives whether there
/// was one.
pub(super) async fn kill(
    epoch: &mut Epoch,
    plan: &Plan,
    victim: Victim,
    after: u64,
    rng: &mut Rng,
    touched: &mut BTreeSet<String>,
) -> Result<bool> {
    let longest = plan.operations.iter().filter_map(|it| epoch.world.usual.get(it.kind())).max();
    let usual = longest.copied().unwrap_or(Duration::from_millis(50));
    tokio::time::sleep(usual * after as u32 / 1000).await;
    let daemon = epoch.daemon.pid().context("the daemon runs")?;
    let processes = host::processes(epoch.daemon.program(), daemon)?;
    let chosen = match victim {
        Victim::Daemon => {
            let runs = !epoch.daemon.has_ended()?;
            epoch.daemon.kill()?;
            return Ok(runs);
        }
        Victim::Launcher => processes.launchers.first().copied(),
        Victim::Parked => (!processes.parked.is_empty()).then(|| *rng.pick(&processes.parked)),
        Victim::Agent => agent(epoch, rng, touched)?,
    };
    // It may have ended by itself in this very moment.
    Ok(chosen.is_some_and(|pid| signal(pid, Signal::KILL).is_ok()))
}

/// The first process of some running sandbox, of which nobody knows any more whether it runs.
fn agent(epoch: &mut Epoch, rng: &mut Rng, touched: &mut BTreeSet<String>) -> Result<Option<u32>> {
    let mut states = Vec::new();
    for entry in fs::read_dir(epoch.daemon.data().join("run"))?.flatten() {
        let text = fs::read_to_string(entry.path().join("state.json")).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        states.extend(state["pid"].as_u64());
    }
    states.sort_unstable();
    if states.is_empty() {
        return Ok(None);
    }
    let pid = *rng.pick(&states) as u32;
    for (name, sandbox) in &mut epoch.world.sandboxes {
        // Which of them it was, the daemon will say.
        sandbox.runs = None;
        touched.insert(name.clone());
    }
    Ok(Some(pid))
}

/// A full disk takes no more, but what is on it can be removed.
pub(super) async fn remove_on_full_disk(epoch: &mut Epoch) -> Result<()> {
    let sandbox = epoch.world.sandboxes(None).into_iter().next();
    let image = epoch.world.images(false).into_iter().nth(2);
    let snapshot = epoch.world.images(true).into_iter().nth(2);
    let operations = [
        sandbox.map(|sandbox| Operation::Remove { sandbox }),
        image.map(|name| Operation::RemoveImage { name }),
        snapshot.map(|name| Operation::RemoveSnapshot { name }),
        Some(Operation::Gc(Collection { much: Much::All, said: Said::Nothing })),
    ];
    for operation in operations.into_iter().flatten() {
        operation.begin(&mut epoch.world);
        let (outcome, _) = operation.ask(epoch.daemon.client()).await;
        let in_use = matches!(&outcome, Outcome::Refused { code, .. } if *code == kiln_types::ErrorCode::ImageInUse);
        ensure!(
            in_use || matches!(outcome, Outcome::Done),
            "on a full disk {operation:?} is refused: {outcome:?}"
        );
        operation.end(&mut epoch.world, &outcome);
    }
    Ok(())
}
