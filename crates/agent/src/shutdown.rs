//! The orderly end of a sandbox.

use std::time::Duration;

use rustix::process::Signal;

use crate::agent::Agent;
use crate::{disks, processes};

/// How long killed processes may take to be gone (uninterruptible IO) before the agent leaves anyway.
const KILLED_GRACE: Duration = Duration::from_secs(2);
/// How often a terminal is hung up while its processes are still there.
const HANG_UP_AGAIN: Duration = Duration::from_millis(200);

/// Ends all processes and flushes the disks. `false` when a shutdown is on its way already.
pub(crate) async fn run(agent: &Agent, grace: Duration) -> bool {
    if !agent.begin_stopping() {
        return false;
    }
    processes::signal_all(Signal::TERM);
    // What is stopped cannot end itself.
    processes::signal_all(Signal::CONT);
    if tokio::time::timeout(grace, all_gone(agent)).await.is_err() {
        processes::signal_all(Signal::KILL);
        let _leaving_anyway = tokio::time::timeout(KILLED_GRACE, agent.reaper.childless()).await;
    }
    let _leaving_anyway = tokio::task::spawn_blocking(disks::sync).await;
    true
}

/// Waits for the end of all processes, and hangs terminals up meanwhile: an interactive shell
/// ignores SIGTERM. More than once, since a shell that is about to read its next line may note the
/// signal and wait for the line first.
async fn all_gone(agent: &Agent) {
    let mut gone = std::pin::pin!(agent.reaper.childless());
    loop {
        for group in agent.terminals.borrow().iter() {
            processes::signal_group(*group, Signal::HUP);
        }
        tokio::select! {
            () = &mut gone => return,
            () = tokio::time::sleep(HANG_UP_AGAIN) => {}
        }
    }
}

/// Ends the agent; as PID 1, the kernel ends whatever is left of the sandbox.
pub(crate) fn exit() -> ! {
    std::process::exit(0)
}
