//! What the handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kiln_build::{Builder, BuilderConfig};
use kiln_images::{ImageStore, ImagesError, Removed};
use kiln_registry::{PullProgress, RegistryClient};
use kiln_roots::Roots;
use kiln_runtime::Runtime;
use kiln_types::api::{ImageInfo, RemovedImage};
use kiln_types::{ErrorCode, ImageName, Reference};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::problem::ApiError;
use crate::removal;
use crate::reserve::Reserve;
use crate::sandboxes::{Parts, Sandboxes};
use crate::snapshots::Snapshots;

/// The services of one daemon.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) roots: Arc<Roots>,
    pub(crate) registry: RegistryClient,
    pub(crate) builder: Arc<Builder>,
    pub(crate) sandboxes: Arc<Sandboxes>,
    pub(crate) snapshots: Arc<Snapshots>,
    /// Room for removals on a full disk.
    pub(crate) reserve: Reserve,
    /// Cancelled when the daemon begins to end: streams without an end of their own then end.
    pub(crate) closing: CancellationToken,
    /// Cancelled when the time for requests in flight is over.
    pub(crate) cutoff: CancellationToken,
    /// Connections that are no longer the HTTP server's.
    pub(crate) sockets: TaskTracker,
}

impl App {
    /// The services on these foundations.
    pub(crate) fn new(
        config: Config,
        images: Arc<ImageStore>,
        roots: Arc<Roots>,
        runtime: Arc<dyn Runtime>,
        registry: RegistryClient,
        builder: BuilderConfig,
    ) -> Arc<Self> {
        let builder = Builder::new(
            builder,
            Arc::clone(&images),
            Arc::clone(&roots),
            Arc::clone(&runtime),
            registry.clone(),
        );
        let sandboxes = Sandboxes::new(Parts {
            images: Arc::clone(&images),
            metadata: Arc::clone(images.metadata()),
            builder: Arc::clone(&builder),
            roots: Arc::clone(&roots),
            runtime,
            defaults: config.defaults,
            stop_grace: Duration::from_millis(config.stop_grace_ms),
            ca_bundle: config.ca_bundle_path().is_some(),
        });
        let snapshots =
            Snapshots::new(Arc::clone(&images), Arc::clone(&roots), Arc::clone(&sandboxes));
        let reserve = Reserve::new(&config.data_dir);
        Arc::new(Self {
            config,
            images,
            roots,
            registry,
            builder,
            sandboxes,
            snapshots,
            reserve,
            closing: CancellationToken::new(),
            cutoff: CancellationToken::new(),
            sockets: TaskTracker::new(),
        })
    }

    /// Removes a name, and with its last name the image; goes on if the client goes away.
    pub(crate) async fn remove_image(
        self: &Arc<Self>,
        text: String,
    ) -> Result<RemovedImage, ApiError> {
        let app = Arc::clone(self);
        // Not cut off by the daemon's end either: what has lost its row is found by nobody later.
        let removal = async move {
            // A disk that gets full between the rows and the files leaves files that have no row any
            // more: then the second attempt finds no image, and the first one's work to finish.
            let known = app.images.resolve(&text).await.ok().map(|image| image.digest);
            let begun = AtomicBool::new(false);
            let remove = || async {
                let again = begun.swap(true, Ordering::Relaxed);
                match removal::remove_image(&app.images, &app.roots, &text).await {
                    Err(ImagesError::NotFound { .. }) if again && known.is_some() => {
                        Ok(Removed { image: known, bytes: app.images.sweep().await? })
                    }
                    removed => Ok(removed?),
                }
            };
            let removed = app.reserve.lend(remove).await?;
            Ok(RemovedImage { image: removed.image, bytes_freed: removed.bytes })
        };
        self.sandboxes.detached(removal).await
    }

    /// Fetches an image from its registry; goes on if the client goes away.
    pub(crate) async fn pull_image(
        self: &Arc<Self>,
        reference: Reference,
        name: Option<ImageName>,
    ) -> Result<ImageInfo, ApiError> {
        let app = Arc::clone(self);
        let pull = tokio::spawn(async move {
            let progress = |event: PullProgress| tracing::debug!(%event, "pull");
            let name = match name {
                Some(name) => Some(name),
                None => kiln_registry::default_name(&reference),
            };
            let image =
                app.registry.pull(&app.images, &reference, name.as_ref(), &progress).await?;
            kiln_build::make_ready(&app.images, &app.roots, &image.layers).await;
            Ok(app.images.info(&image).await?)
        });
        match pull.await {
            Ok(result) => result,
            Err(error) => Err(ApiError::of(ErrorCode::Internal, &error)),
        }
    }
}
