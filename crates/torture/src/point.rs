//! One point: operations, a fault in the middle, a restart, and a look at everything.

mod damage;
mod mend;
mod strike;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kiln_types::ErrorCode;

use crate::arguments::Arguments;
use crate::epoch::Epoch;
use crate::fault::{Fault, Victim};
use crate::operation::{Operation, Outcome};
use crate::plan::{self, Plan};
use crate::report::Report;
use crate::rng::Rng;
use crate::tools::Hold;
use crate::{checks, collect};

/// The longest start.
const START: Duration = Duration::from_secs(2);
/// Above this many runnable processes for each processor, time says nothing.
const LOADED: f64 = 2.0;

/// Runs a point.
pub(crate) async fn run(
    arguments: &Arguments,
    epoch: &mut Epoch,
    number: u64,
    report: &mut Report,
) -> Result<()> {
    let plan = plan::plan(arguments, number, epoch);
    let said = format!("{:?} during {:?}", plan.fault, plan.operations);
    let mut rng = Rng::new(arguments.seed.rotate_left(32), number);
    let done = async {
        if plan.operations.iter().any(|operation| matches!(operation, Operation::Gc(_))) {
            let rootfs = arguments.rootfs.display().to_string();
            collect::litter(epoch, &rootfs, number).await.context("before the point")?;
        }
        carry_out(epoch, &plan, &mut rng, report).await
    };
    let done = done.await;
    let (hit, outcome) = done.with_context(|| said).inspect_err(|_| {
        eprintln!("the daemon's last words:\n{}\n", epoch.daemon.last_words());
    })?;
    report.point(number, &plan, hit, &outcome);
    Ok(())
}

async fn carry_out(
    epoch: &mut Epoch,
    plan: &Plan,
    rng: &mut Rng,
    report: &mut Report,
) -> Result<(bool, String)> {
    let mut touched: BTreeSet<String> =
        plan.operations.iter().flat_map(|operation| operation.touches(&epoch.world)).collect();
    for operation in &plan.operations {
        operation.begin(&mut epoch.world);
    }
    let fired = epoch.daemon.plan_file().with_extension("fired");
    drop(fs::remove_file(&fired));
    if plan.fault.while_running() {
        arm(epoch, &plan.fault)?;
    }
    if let Fault::Tool { program, moment, daemon } = plan.fault {
        let daemon = if daemon { epoch.daemon.pid() } else { None };
        epoch.tools.arm(Hold { program, moment, daemon });
    }
    if let (Fault::Disk { free_kib, .. }, Some(disk)) = (&plan.fault, &epoch.disk) {
        disk.fill(*free_kib)?;
    }
    let answers: Vec<_> = plan
        .operations
        .iter()
        .cloned()
        .map(|operation| {
            let client = epoch.daemon.client().clone();
            tokio::spawn(async move { operation.ask(&client).await })
        })
        .collect();
    let mut hit = match plan.fault {
        Fault::Kill { victim, after } => {
            strike::kill(epoch, plan, victim, after, rng, &mut touched).await?
        }
        _ => true,
    };
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(answer.await?);
    }
    fs::write(epoch.daemon.plan_file(), "")?;
    match plan.fault {
        Fault::Point { .. } => hit = fired.exists(),
        Fault::Tool { .. } => hit = epoch.tools.disarm(),
        _ => {}
    }
    if plan.fault.ends_the_daemon() && hit {
        // Its connections may close before it has ended.
        epoch.daemon.wait_for_end().await?;
    }
    let died = epoch.daemon.has_ended()?;
    ensure!(plan.fault.ends_the_daemon() || !died, "the daemon has ended by itself");
    for (operation, (outcome, _)) in plan.operations.iter().zip(&mut outcomes) {
        if !died && let Some(mended) = mend::mend(epoch, &plan.fault, operation, outcome).await? {
            *outcome = mended;
            report.mended();
        }
    }
    for (operation, (outcome, time)) in plan.operations.iter().zip(&outcomes) {
        judge(operation, outcome, &plan.fault, died)?;
        operation.end(&mut epoch.world, outcome);
        if !hit && matches!(outcome, Outcome::Done) {
            epoch.world.took(operation.kind(), *time);
        }
    }
    if !died {
        alive(epoch, plan, &touched).await.context("before the restart")?;
    }
    restart(epoch, plan, rng, report, &mut touched).await?;
    if let Fault::Point { .. } = plan.fault {
        hit = fired.exists();
    }
    let daemon = &epoch.daemon;
    let words = || "after the restart";
    checks::journal(daemon, &mut epoch.world, &touched).await.with_context(words)?;
    checks::host(daemon, &epoch.world).await.with_context(words)?;
    checks::files(daemon, &epoch.world).await.with_context(words)?;
    checks::descriptors(daemon, &epoch.world).await.with_context(words)?;
    let damaged = matches!(plan.fault, Fault::Files(_));
    checks::fsck(daemon, damaged).await.with_context(words)?;
    if plan.operations.iter().any(|operation| matches!(operation, Operation::Gc(_))) {
        collect::empties(daemon.client()).await.with_context(words)?;
        checks::fsck(daemon, false).await.with_context(|| "after a collection of all")?;
    }
    let said: Vec<String> = outcomes.iter().map(|(outcome, _)| short(outcome)).collect();
    Ok((hit, said.join(", ")))
}

fn arm(epoch: &Epoch, fault: &Fault) -> Result<()> {
    if let Fault::Point { point, nth, action } = fault {
        fs::write(epoch.daemon.plan_file(), format!("{}:{nth}={action}", point.name))?;
    }
    Ok(())
}

fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".into(),
        Outcome::Refused { code, text } => {
            format!("{code:?} ({})", text.chars().take(160).collect::<String>())
        }
        Outcome::Lost(_) => "lost".into(),
        Outcome::Wrong(text) => text.clone(),
    }
}

/// Whether the fault excuses the answer.
fn judge(operation: &Operation, outcome: &Outcome, fault: &Fault, died: bool) -> Result<()> {
    match outcome {
        Outcome::Done => Ok(()),
        Outcome::Lost(text) => {
            ensure!(died, "no answer to {operation:?} from a daemon that runs: {text}");
            Ok(())
        }
        // Some sandbox or snapshot was made of it.
        Outcome::Refused { code: ErrorCode::ImageInUse, .. } => Ok(()),
        Outcome::Wrong(text) => bail!("{operation:?}: {text}"),
        Outcome::Refused { code, text } => {
            let excused = match fault {
                // Another launcher takes the place of a dead one, and nobody notices.
                Fault::Kill { victim: Victim::Daemon | Victim::Launcher, .. } | Fault::Files(_) => {
                    false
                }
                Fault::Kill { .. } => true,
                Fault::Tool { program, daemon, .. } => !daemon && operation.needs(program),
                Fault::Point { action: "kill", .. } => false,
                Fault::Point { action: "enospc", .. } => *code == ErrorCode::StorageFull,
                Fault::Point { .. } => true,
                Fault::Registry { .. } => matches!(operation, Operation::Pull { .. }),
                Fault::Disk { .. } => {
                    matches!(code, ErrorCode::StorageFull | ErrorCode::ExecFailed)
                }
            };
            ensure!(excused, "{operation:?} was refused with {code:?}: {text}");
            Ok(())
        }
    }
}

/// The daemon has lived through the fault: everything has to be in order without a restart.
async fn alive(epoch: &mut Epoch, plan: &Plan, touched: &BTreeSet<String>) -> Result<()> {
    // What removal leaves half-done is finished by the next start, and so is what ended by itself.
    let open = plan.operations.iter().any(|operation| {
        matches!(
            operation,
            Operation::Remove { .. }
                | Operation::RemoveImage { .. }
                | Operation::RemoveSnapshot { .. }
                | Operation::Gc(_)
        )
    });
    let fails = matches!(plan.fault, Fault::Point { .. } | Fault::Disk { .. });
    if fails && open || matches!(plan.fault, Fault::Kill { .. } | Fault::Disk { .. }) {
        return Ok(());
    }
    checks::journal(&epoch.daemon, &mut epoch.world, touched).await?;
    checks::host(&epoch.daemon, &epoch.world).await?;
    checks::descriptors(&epoch.daemon, &epoch.world).await?;
    checks::files(&epoch.daemon, &epoch.world).await
}

async fn restart(
    epoch: &mut Epoch,
    plan: &Plan,
    rng: &mut Rng,
    report: &mut Report,
    touched: &mut BTreeSet<String>,
) -> Result<()> {
    if rng.chance(1, 6) && !epoch.daemon.has_ended()? {
        epoch.daemon.terminate()?;
    } else {
        epoch.daemon.kill()?;
    }
    if let Fault::Files(damage) = plan.fault {
        damage::inflict(epoch, damage, rng, touched)?;
    }
    let full = matches!(plan.fault, Fault::Disk { restart_full: true, .. });
    if let (Some(disk), false) = (&epoch.disk, full) {
        disk.empty()?;
    }
    if matches!(plan.fault, Fault::Point { .. }) && !plan.fault.while_running() {
        arm(epoch, &plan.fault)?;
        // It dies, or refuses to start. The point may also not be passed by this start.
        if epoch.daemon.start().is_ok() {
            epoch.daemon.kill()?;
        }
        fs::write(epoch.daemon.plan_file(), "")?;
    }
    started(epoch, report)?;
    if full {
        strike::remove_on_full_disk(epoch).await?;
        if let Some(disk) = &epoch.disk {
            disk.empty()?;
        }
    }
    Ok(())
}

fn started(epoch: &mut Epoch, report: &mut Report) -> Result<()> {
    let time = epoch.daemon.start().context("the daemon does not start again")?;
    report.restart(time);
    if time > START {
        let text = fs::read_to_string("/proc/loadavg")?;
        let load: f64 = text.split(' ').next().unwrap_or_default().parse()?;
        let processors = u32::try_from(std::thread::available_parallelism()?.get())?;
        if load / f64::from(processors) < LOADED {
            bail!("the start took {time:?} at a load of {load}");
        }
        println!("a start took {time:?} at a load of {load}");
        report.slow_start();
    }
    Ok(())
}
