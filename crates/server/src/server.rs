//! The daemon's life: take the data directory, put the parts together, serve, drain.

mod disks;
mod host;
mod layers;
mod listen;
mod slots;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kiln_build::BuilderConfig;
use kiln_images::ImageStore;
use kiln_metadata::MetadataStore;
use kiln_registry::RegistryClient;
use kiln_roots::{Roots, UpperLimits};
use kiln_runtime::native::{CA_BUNDLE, CA_ENV};
use kiln_runtime::{Launcher, Runtime, Slots};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::Keys;
use crate::config::Config;
use crate::error::ServerError;
use crate::lock::DataLock;
use crate::reserve::Reserve;
use crate::routes::router;
use crate::upkeep;
use host::HostShare;

/// How long what was cut off may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The daemon.
#[derive(Debug)]
pub struct Server;

/// Where a daemon can be reached, now that it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The TCP address, with the port that was bound.
    pub address: SocketAddr,
    /// The Unix socket.
    pub socket: PathBuf,
    /// The file with the first API key.
    pub api_key: PathBuf,
}

impl Server {
    /// Runs until SIGTERM or SIGINT, then lets requests in flight come to their end. Sandboxes run on.
    ///
    /// `ready` is called once, when requests are answered. `launcher` has to have been started before
    /// the process had threads.
    pub async fn run(
        config: Config,
        launcher: Launcher,
        ready: impl FnOnce(&Ready),
    ) -> Result<(), ServerError> {
        config.check()?;
        for variable in &config.unknown_variables {
            tracing::warn!(variable, "this environment variable is no key of the configuration");
        }
        let signals = Signals::new().map_err(ServerError::Signals)?;
        make_directory(&config.data_dir)?;
        let _lock = DataLock::take(&config.data_dir)?;
        Reserve::new(&config.data_dir).release_if_scarce();
        make_directory(&config.run_dir())?;

        let Assembled { app, keys, host } = assemble(config, launcher).await?;
        let served = serve(&app, keys, signals, ready).await;
        host.leave(app.images.metadata().as_ref()).await;
        tracing::info!("ended");
        served
    }
}

/// Answers requests until a signal comes and what is under way then has come to its end.
async fn serve(
    app: &Arc<App>,
    keys: Keys,
    mut signals: Signals,
    ready: impl FnOnce(&Ready),
) -> Result<(), ServerError> {
    let tcp = listen::tcp(app.config.listen).await?;
    let address = tcp
        .local_addr()
        .map_err(|source| ServerError::Listen { address: app.config.listen, source })?;
    let socket = app.config.socket_path();
    let unix = listen::unix(&socket)?;
    let address_file = app.config.run_dir().join("address");
    listen::write_address(&address_file, address)?;
    // Nothing more is written to start.
    app.reserve.fill();
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the API is open to other hosts, and keys and data pass unencrypted: put a TLS proxy before it");
    }
    tracing::info!(%address, socket = %socket.display(), "listening");

    let (tcp_router, unix_router) =
        (router(Arc::clone(app), Some(keys)), router(Arc::clone(app), None));
    let servers = [
        tokio::spawn(listen::serve_tcp(tcp, tcp_router, app.closing.clone())),
        tokio::spawn(listen::serve_unix(unix, unix_router, app.closing.clone())),
    ];
    ready(&Ready { address, socket: socket.clone(), api_key: app.config.api_key_path() });

    let name = signals.wait().await;
    tracing::info!(signal = name, "shutting down; sandboxes run on");
    let hurry = CancellationToken::new();
    let second = tokio::spawn({
        let hurry = hurry.clone();
        async move {
            let name = signals.wait().await;
            tracing::warn!(signal = name, "a second signal: what is under way is cut off");
            hurry.cancel();
        }
    });
    drain(app, servers, &hurry).await;
    second.abort();
    for file in [&socket, &address_file] {
        // Both are replaced at the next start; a leftover does no harm.
        let _gone = fs::remove_file(file);
    }
    Ok(())
}

/// The parts, put together.
struct Assembled {
    app: Arc<App>,
    keys: Keys,
    host: HostShare,
}

/// Puts the parts together, and brings what an earlier life of the daemon has left into order.
async fn assemble(config: Config, launcher: Launcher) -> Result<Assembled, ServerError> {
    let data_dir = config.data_dir.clone();
    let metadata: Arc<dyn MetadataStore> = Arc::new(upkeep::open_database(&data_dir).await?);
    let keys = Keys::load(metadata.as_ref(), &config.api_key_path()).await?;
    let images = ImageStore::open(&data_dir, Arc::clone(&metadata))
        .map_err(ServerError::part("the image store"))?;
    let uppers = disks::open(&config, &data_dir.join("uppers"))
        .map_err(ServerError::part("the sandboxes' disks"))?;
    let mounts = layers::open(config.layers, &data_dir)?;
    let roots = Roots::new(&data_dir, mounts, Arc::new(uppers))
        .map_err(ServerError::part("the sandboxes' roots"))?;
    let registry = RegistryClient::new(config.registries.clone())
        .map_err(ServerError::part("the registry client"))?;
    let slots = Arc::new(slots::MetadataSlots::new(metadata));
    let host = HostShare::take(&config, launcher, Arc::clone(&slots) as Arc<dyn Slots>).await?;
    let runtime: Arc<dyn Runtime> = Arc::clone(&host.drivers) as Arc<dyn Runtime>;
    let mut builder_config = BuilderConfig::new(&data_dir);
    builder_config.disk = UpperLimits { bytes: u64::from(config.build_disk_mib) << 20 };
    builder_config.catalog.extend(config.catalog.clone());
    if config.ca_bundle_path().is_some() {
        builder_config.step_env =
            CA_ENV.map(|name| (name.to_owned(), CA_BUNDLE.to_owned())).to_vec();
    }
    let app = App::new(config, images, Arc::new(roots), runtime, registry, builder_config);
    let failed = |error: crate::problem::ApiError| ServerError::Part {
        part: "the sandboxes of the daemon's earlier life",
        source: (*error.problem).into(),
    };
    app.sandboxes.reconcile().await.map_err(failed)?;
    app.builder
        .recover()
        .await
        .map_err(ServerError::part("the builds of the daemon's earlier life"))?;
    layers::sweep(&app).await;
    slots.open().await?;
    Ok(Assembled { app, keys, host })
}

/// Takes no more connections, and gives what is under way the configured time, or until `hurry`.
async fn drain(app: &App, servers: [tokio::task::JoinHandle<()>; 2], hurry: &CancellationToken) {
    let deadline = Duration::from_millis(app.config.drain_ms);
    // First, so that whoever follows a build's log still sees its end.
    if !in_time(deadline, hurry, app.builder.shutdown()).await {
        tracing::warn!("a build was cut off at the end of the drain time");
    }
    app.closing.cancel();
    let [tcp, unix] = servers;
    let stop = [tcp.abort_handle(), unix.abort_handle()];
    let mut requests = pin!(async { tokio::join!(tcp, unix) });
    if !in_time(deadline, hurry, &mut requests).await {
        tracing::warn!("requests are cut off at the end of the drain time");
        app.cutoff.cancel();
        let _cut_off = tokio::time::timeout(LAST_WORDS, requests).await;
        stop.iter().for_each(tokio::task::AbortHandle::abort);
    }
    app.sockets.close();
    let _cut_off = tokio::time::timeout(LAST_WORDS, app.sockets.wait()).await;
    // Changes of sandboxes are never cut off: half of one is worth less than the wait.
    app.sandboxes.settle().await;
    let _unanswered = tokio::time::timeout(LAST_WORDS, app.sandboxes.flush()).await;
}

/// Whether `work` came to its end in its time and before `hurry`.
async fn in_time<T>(
    deadline: Duration,
    hurry: &CancellationToken,
    work: impl Future<Output = T>,
) -> bool {
    tokio::select! {
        done = tokio::time::timeout(deadline, work) => done.is_ok(),
        () = hurry.cancelled() => false,
    }
}

/// The signals that end the daemon in order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Makes a directory that only its owner can look into.
fn make_directory(path: &Path) -> Result<(), ServerError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| {
        ServerError::DataDir { action: "make the directory", path: path.to_owned(), source }
    })
}
