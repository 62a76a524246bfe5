//! Where a build starts: a base, resolved to an image of the store.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use kiln_images::{ImageStore, ImagesError};
use kiln_metadata::{BasePin, ImageRecord, MetadataError};
use kiln_registry::{PullProgress, RegistryError, default_name};
use kiln_types::error::ErrorCode;
use kiln_types::reference::ParseReferenceError;
use kiln_types::{Base, Reference};

use crate::builder::Builder;
use crate::snapshot::SealError;

mod archive;
mod catalog;
mod rootfs;
mod scratch;

pub use catalog::CatalogSource;
pub(crate) use scratch::clean_up;

/// Told, line by line, what is being done.
pub(crate) type Say<'a> = &'a (dyn Fn(String) + Send + Sync);

/// What equal resolutions share: the base in its canonical form, with the state of a tarball.
pub(crate) type BaseKey = String;

/// Why a base could not be obtained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// The catalog has no such name.
    #[error("`{name}` is not a name of the catalog, which has {}", known.join(", "))]
    NotInCatalog {
        /// The name.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// No source of a catalog name gave it.
    #[error("base `{name}` could not be obtained from any of its sources: {}", attempts.join("; "))]
    NoSource {
        /// The name.
        name: String,
        /// For each source, why not.
        attempts: Vec<String>,
    },
    /// A text that was checked before is not a reference.
    #[error("the base is not a reference")]
    Reference(#[source] ParseReferenceError),
    /// The registry did not give the image.
    #[error("base {reference} could not be pulled")]
    Pull {
        /// The reference.
        reference: Reference,
        /// The cause.
        #[source]
        source: RegistryError,
    },
    /// The registry did not answer in time.
    #[error("the registry of {reference} did not answer within {seconds} s")]
    TimedOut {
        /// The reference.
        reference: Reference,
        /// The time it had.
        seconds: u64,
    },
    /// The distribution's archive did not give a root file system.
    #[error("a root file system of {suite} could not be made")]
    Archive {
        /// The suite.
        suite: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A rootfs could not be read.
    #[error("could not {action} the rootfs {}", path.display())]
    Rootfs {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The directory or tarball.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A rootfs directory has what no layer can have, or could not be stored.
    #[error("the rootfs {} could not be imported", path.display())]
    Import {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: SealError,
    },
    /// The store failed, or has no such image.
    #[error("the base could not be taken from the store")]
    Store(#[source] ImagesError),
    /// The database failed.
    #[error("could not {action} the base")]
    Metadata {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The cause.
        #[source]
        source: MetadataError,
    },
}

impl BaseError {
    /// The code that clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotInCatalog { .. } | Self::Reference(_) => ErrorCode::InvalidDefinition,
            Self::NoSource { .. } | Self::TimedOut { .. } | Self::Archive { .. } => {
                ErrorCode::BaseUnavailable
            }
            Self::Pull { source, .. } => source.code(),
            Self::Rootfs { .. } => ErrorCode::BaseUnavailable,
            Self::Import { source, .. } => source.code(),
            Self::Store(source) => source.code(),
            Self::Metadata { source, .. } => source.code(),
        }
    }

    fn archive(suite: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Archive { suite: suite.to_owned(), source: source.into() }
    }
}

impl Builder {
    /// The image of `base`, from the store, from where it is pinned, or from its source; `say` is told
    /// which. With `pull`, pins do not count. Equal bases that are resolved at once are resolved once,
    /// except where that could give what was there before this call: with `pull`, and of directories.
    pub async fn resolve_base(
        &self,
        base: &Base,
        pull: bool,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<ImageRecord, Arc<BaseError>> {
        if let Base::Image(text) = base {
            // Nothing to share: a look-up.
            let found = self.store.resolve(text).await;
            return found.map_err(|error| Arc::new(BaseError::Store(error)));
        }
        let key = canonical(base)?;
        let work = || async {
            let result = match base {
                Base::Catalog(name) => self.catalog_base(name, &key, pull, say).await,
                Base::Reference(text) => self.reference_base(text, &key, pull, say).await,
                Base::Rootfs(path) => rootfs::import(&self.store, path, pull, say).await,
                Base::Image(_) => unreachable!("it was looked up above"),
            };
            result.map_err(Arc::new)
        };
        let shared = match base {
            _ if pull => None,
            Base::Rootfs(path) => rootfs::state(path),
            _ => Some(key.clone()),
        };
        let Some(shared) = shared else { return work().await };
        let waiting = || say(format!("another build is obtaining {key}; waiting for it"));
        self.bases.run(&shared, waiting, work).await.0
    }

    /// The same; `None` when the builder is shut down first, which ends whatever is under way.
    pub(crate) async fn resolve_until_shutdown(
        &self,
        base: &Base,
        pull: bool,
        say: Say<'_>,
    ) -> Option<Result<ImageRecord, Arc<BaseError>>> {
        tokio::select! {
            resolved = self.resolve_base(base, pull, say) => Some(resolved),
            () = self.cancel.cancelled() => None,
        }
    }

    async fn reference_base(
        &self,
        text: &str,
        key: &str,
        pull: bool,
        say: Say<'_>,
    ) -> Result<ImageRecord, BaseError> {
        if !pull && let Some((image, pin)) = pinned(&self.store, key).await? {
            say(format!("base {text}: {} as of {}", image.digest, pin.resolved_at));
            return Ok(image);
        }
        let reference: Reference = text.parse().map_err(BaseError::Reference)?;
        let image = self.pull(&reference, say).await?;
        pin(&self.store, key, &image, "registry").await?;
        Ok(image)
    }

    /// Pulls an image under its own name.
    async fn pull(&self, reference: &Reference, say: Say<'_>) -> Result<ImageRecord, BaseError> {
        let name = default_name(reference);
        let progress = |event: PullProgress| match event {
            PullProgress::LayerProgress { .. } | PullProgress::Finished { .. } => {}
            event => say(event.to_string()),
        };
        let pulled = self.registry.pull(&self.store, reference, name.as_ref(), &progress).await;
        pulled.map_err(|source| BaseError::Pull { reference: reference.clone(), source })
    }
}

/// What a base is pinned under. Equal bases have equal forms.
fn canonical(base: &Base) -> Result<String, Arc<BaseError>> {
    Ok(match base {
        Base::Catalog(name) => format!("catalog:{name}"),
        Base::Reference(text) => {
            let reference: Reference =
                text.parse().map_err(|error| Arc::new(BaseError::Reference(error)))?;
            format!("reference:{reference}")
        }
        Base::Rootfs(path) => format!("rootfs:{path}"),
        Base::Image(text) => format!("image:{text}"),
    })
}

/// What `key` is pinned to, if that is still there and whole.
async fn pinned(
    store: &ImageStore,
    key: &str,
) -> Result<Option<(ImageRecord, BasePin)>, BaseError> {
    let failed = |source| BaseError::Metadata { action: "look up", source };
    let Some(pin) = store.metadata().get_base_pin(key).await.map_err(failed)? else {
        return Ok(None);
    };
    let Some(image) = store.metadata().get_image(&pin.image).await.map_err(failed)? else {
        return Ok(None);
    };
    match store.prove_layers(&image.layers).await {
        Ok(_) => {
            if let Err(error) = store.metadata().touch_base_pin(key).await {
                tracing::warn!(base = key, %error, "the use of a base is not noted");
            }
            Ok(Some((image, pin)))
        }
        Err(error) => {
            tracing::warn!(base = key, %error, "a pinned base is not whole; it is obtained again");
            Ok(None)
        }
    }
}

async fn pin(
    store: &ImageStore,
    key: &str,
    image: &ImageRecord,
    source: &str,
) -> Result<(), BaseError> {
    let pin = BasePin {
        base: key.to_owned(),
        image: image.digest,
        source: source.to_owned(),
        resolved_at: Timestamp::now(),
    };
    let put = store.metadata().put_base_pin(&pin).await;
    put.map_err(|source| BaseError::Metadata { action: "pin", source })
}
