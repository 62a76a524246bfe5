//! The `oci` driver: sandboxes that a runtime of the OCI specification starts (runc, crun, runsc).
//!
//! It is the native driver with another last step. Slot, control group, network, root and the link to the
//! agent are made in the same way, by the same code; where the launcher would become the agent, it hands
//! the finished root back, and a runtime is called with it. So the agent, the limits, the end of a sandbox
//! and finding it again are no different, and one sweep cleans up after all of them.
//!
//! A runtime is only ever called to start a sandbox. It keeps what it knows in the sandbox's own directory
//! and the root in a mount namespace of that one call, so there is nothing to ask it to delete: freezing
//! and killing are the control group's business, and the rest goes with the directory.

mod bundle;
mod engine;
mod flavour;
mod probe;
mod program;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_types::SandboxId;
use tokio::sync::OnceCell;

use self::engine::OciEngine;
pub use self::flavour::Flavour;
pub use self::probe::{Found, ProbeError, probe};
use crate::native::{NativeRuntime, Parts, blocking};
use crate::runtime::{RootSource, Running, Runtime, RuntimeError, SandboxSpec};

/// How a runtime is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciConfig {
    /// The driver's name.
    pub name: String,
    /// Which runtime it is.
    pub flavour: Flavour,
    /// Its program; looked for in `PATH` when it has no `/`.
    pub path: PathBuf,
    /// More options, before the command.
    pub args: Vec<String>,
}

impl OciConfig {
    /// A runtime as it is found in `PATH`.
    pub fn new(flavour: Flavour) -> Self {
        let name = flavour.name();
        Self { name: name.to_owned(), flavour, path: name.into(), args: Vec::new() }
    }
}

/// The driver.
#[derive(Debug)]
pub struct OciRuntime {
    parts: Parts,
    config: OciConfig,
    /// Filled once the runtime was found to be usable: one that is installed later is found later.
    usable: OnceCell<()>,
}

impl OciRuntime {
    /// The driver on the host that `native` has set up; both are to be used side by side.
    pub fn new(config: OciConfig, native: &NativeRuntime) -> Result<Arc<Self>, RuntimeError> {
        let engine = OciEngine { config: config.clone(), mount_point: native.mount_point()? };
        let parts = native.with_engine(Arc::new(engine));
        Ok(Arc::new(Self { parts, config, usable: OnceCell::new() }))
    }

    /// Whether the runtime can be used on this host.
    ///
    /// # Errors
    /// [`RuntimeError::Driver`] with what is in the way.
    pub async fn check(&self) -> Result<(), RuntimeError> {
        let look = || async {
            let config = self.config.clone();
            let found = blocking(move || probe(&config)).await;
            found.map(drop).map_err(|error| RuntimeError::Driver {
                driver: self.config.name.clone(),
                problem: format!("cannot be used on this host: {}", chain(&error)),
            })
        };
        self.usable.get_or_try_init(look).await.copied()
    }
}

/// An error with its causes, for one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[async_trait]
impl Runtime for OciRuntime {
    fn name(&self) -> &str {
        self.parts.name()
    }

    async fn create(
        &self,
        spec: SandboxSpec,
        root: Box<dyn RootSource>,
    ) -> Result<Running, RuntimeError> {
        self.check().await?;
        self.parts.create(spec, root).await
    }

    async fn adopt(&self, spec: SandboxSpec) -> Result<Option<Running>, RuntimeError> {
        self.parts.adopt(spec).await
    }

    async fn stop(&self, id: SandboxId, grace: Duration) -> Result<(), RuntimeError> {
        self.parts.stop(id, grace).await
    }

    async fn freeze(&self, id: SandboxId) -> Result<(), RuntimeError> {
        self.parts.freeze(id).await
    }

    async fn thaw(&self, id: SandboxId) -> Result<(), RuntimeError> {
        self.parts.thaw(id).await
    }

    async fn sweep(&self, alive: &[SandboxId]) -> Result<(), RuntimeError> {
        self.parts.sweep(alive).await
    }
}
