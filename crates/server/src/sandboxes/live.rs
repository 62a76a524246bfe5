//! A sandbox that runs, and the link to its agent.

use std::net::Ipv4Addr;
use std::sync::Arc;

use kiln_runtime::agent::Agent;
use kiln_runtime::{Exit, Running, Runtime, SandboxSpec, Slot};
use kiln_types::SandboxId;
use tokio::sync::{Mutex, watch};

use super::ProcessDefaults;

/// A sandbox that runs.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: SandboxId,
    pub(crate) process: ProcessDefaults,
    pub(crate) slot: Slot,
    pub(crate) address: Option<Ipv4Addr>,
    /// Becomes `Some` when it has ended.
    pub(crate) exit: watch::Receiver<Option<Exit>>,
    agent: Mutex<Agent>,
    runtime: Arc<dyn Runtime>,
    /// How the driver finds it again.
    spec: SandboxSpec,
}

impl Live {
    pub(super) fn new(
        running: Running,
        process: ProcessDefaults,
        runtime: &Arc<dyn Runtime>,
        spec: SandboxSpec,
    ) -> Arc<Self> {
        let Running { agent, slot, address, exit, pid: _ } = running;
        Arc::new(Self {
            id: spec.id,
            process,
            slot,
            address,
            exit,
            agent: Mutex::new(agent),
            runtime: Arc::clone(runtime),
            spec,
        })
    }

    /// Its agent. A link that was lost while the sandbox runs on is made anew; where that cannot be
    /// done, the call that follows fails by the lost one.
    pub(crate) async fn agent(&self) -> Agent {
        let mut agent = self.agent.lock().await;
        if agent.is_lost() && self.exit.borrow().is_none() {
            match self.runtime.adopt(self.spec.clone()).await {
                Ok(Some(running)) => {
                    if !running.agent.is_lost() {
                        tracing::warn!(sandbox = %self.id, "the link to its agent was lost, and is made anew");
                    }
                    *agent = running.agent;
                }
                // It has just ended, which whoever waits for that writes down.
                Ok(None) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(sandbox = %self.id, error, "cannot reach its agent again");
                }
            }
        }
        agent.clone()
    }

    /// Waits until the agent has got what was sent to it. A lost link stays lost.
    pub(super) async fn flush(&self) {
        let agent = self.agent.lock().await.clone();
        let _unanswered = agent.ping().await;
    }
}
