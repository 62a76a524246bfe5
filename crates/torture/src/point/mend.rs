//! Disks that met a full host.

use anyhow::{Result, bail};

use crate::epoch::Epoch;
use crate::fault::Fault;
use crate::operation::{Operation, Outcome};

/// Whether a command found its disk read-only, as one is that had something to write when the host was
/// full. What says so may come much later than the full disk.
fn is_spoilt(epoch: &Epoch, operation: &Operation, outcome: &Outcome) -> bool {
    epoch.disk.is_some()
        && matches!(operation, Operation::Exec { .. })
        && matches!(outcome, Outcome::Refused { text, .. } if text.contains("Read-only file system"))
}

/// Stops and starts the sandbox of such a command, which has to bring back all that it had synced, and
/// asks once more. Gives the new answer, if there was need for one.
pub(super) async fn mend(
    epoch: &mut Epoch,
    fault: &Fault,
    operation: &Operation,
    outcome: &Outcome,
) -> Result<Option<Outcome>> {
    let Operation::Exec { sandbox, .. } = operation else { return Ok(None) };
    // On a disk that is still full, the refusal is what has to be.
    if matches!(fault, Fault::Disk { .. }) || !is_spoilt(epoch, operation, outcome) {
        return Ok(None);
    }
    let sandbox = sandbox.clone();
    for again in [Operation::Stop { sandbox: sandbox.clone() }, Operation::Start { sandbox }] {
        again.begin(&mut epoch.world);
        let (outcome, _) = again.clone().ask(epoch.daemon.client()).await;
        if !matches!(outcome, Outcome::Done) {
            bail!("its disk met a full host, and {again:?} does not help: {outcome:?}");
        }
        again.end(&mut epoch.world, &outcome);
    }
    Ok(Some(operation.clone().ask(epoch.daemon.client()).await.0))
}
