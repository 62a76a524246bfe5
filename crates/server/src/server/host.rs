//! The daemon's share of the host, and the drivers that live on it.

use std::path::Path;
use std::sync::Arc;

use kiln_metadata::MetadataStore;
use kiln_runtime::host::HostBlock;
use kiln_runtime::{
    Drivers, Launcher, NativeConfig, NativeRuntime, OciRuntime, Runtime, RuntimeError, Slots,
};

use crate::config::Config;
use crate::error::ServerError;

/// Where the daemons of one host agree on who has which share of it.
const RUN_DIR: &str = "/run/kiln";

/// The share, and what has been set up in it.
#[derive(Debug)]
pub(super) struct HostShare {
    block: HostBlock,
    native: Arc<NativeRuntime>,
    pub(super) drivers: Arc<Drivers>,
}

impl HostShare {
    /// Claims a share, the one of the daemon's earlier life if it had one, and starts the driver.
    pub(super) async fn take(
        config: &Config,
        launcher: Launcher,
        slots: Arc<dyn Slots>,
    ) -> Result<Self, ServerError> {
        let block = HostBlock::claim(Path::new(RUN_DIR), &config.data_dir)
            .map_err(ServerError::part("the share of this host"))?;
        let native_config = NativeConfig {
            pool: config.pool_size,
            ca_bundle: config.ca_bundle_path(),
            ..NativeConfig::new(config.run_dir(), block.clone())
        };
        let native = NativeRuntime::new(native_config, launcher, slots)
            .await
            .map_err(ServerError::part("the sandbox runtime"))?;
        let drivers = drivers(config, &native).await?;
        Ok(Self { block, native, drivers })
    }

    /// Gives the share back if there are no sandboxes, running or stopped: whoever ends such a daemon
    /// and removes its data leaves the host as it was. Otherwise it is kept, for they use its ids and
    /// addresses, and only what was prepared is given back.
    ///
    /// What cannot be given back is in nobody's way: the next daemon with this share sweeps it.
    pub(super) async fn leave(self, metadata: &dyn MetadataStore) {
        match metadata.list_sandboxes(None, 1).await {
            Ok(sandboxes) if sandboxes.is_empty() => {}
            Ok(_) => return self.native.shutdown().await,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "cannot tell whether there are sandboxes: the share of this host is kept"
                );
                return self.native.shutdown().await;
            }
        }
        if let Err(error) = self.native.teardown().await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "the share of this host is kept: it could not be cleared");
            return;
        }
        if let Err(error) = self.block.release() {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "the share of this host could not be given back");
        }
    }
}

/// The drivers. The default one has to be usable; what the others lack is said to who asks for them.
async fn drivers(
    config: &Config,
    native: &Arc<NativeRuntime>,
) -> Result<Arc<Drivers>, ServerError> {
    let failed = |error: RuntimeError| ServerError::Part {
        part: "the configured driver",
        source: Box::new(error),
    };
    let mut all: Vec<Arc<dyn Runtime>> = vec![Arc::clone(native) as Arc<dyn Runtime>];
    for runtime in config.oci_runtimes()? {
        let is_default = runtime.name == config.driver;
        let driver = OciRuntime::new(runtime, native).map_err(failed)?;
        if is_default {
            driver.check().await.map_err(failed)?;
        }
        all.push(driver);
    }
    Drivers::new(&config.driver, all).map_err(failed)
}
