//! From an upper to a layer: what a sandbox changed, as an OCI layer of the store.

mod root;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_images::{ImageStore, ImagesError, LayerHold, PendingLayer};
use kiln_layer::{LayerError, UpperOptions, UpperReport, write_upper_tar};
use kiln_metadata::LayerRecord;
use kiln_roots::{Roots, RootsError};
use kiln_types::DiffId;
use kiln_types::error::ErrorCode;

use root::root_of;

/// An upper, sealed.
#[derive(Debug)]
pub struct Sealed {
    /// The layer; `None` when nothing was changed.
    pub layer: Option<SealedLayer>,
    /// Sockets that were left out: a layer cannot hold them.
    pub skipped_sockets: u64,
}

/// A layer that was just made, and is not removed as long as this value lives.
#[derive(Debug)]
pub struct SealedLayer {
    /// Its row.
    pub record: LayerRecord,
    /// What keeps it until an image needs it.
    pub hold: LayerHold,
}

/// What could not be done with an upper.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The upper could not be found.
    #[error("could not find the disk of the sandbox")]
    Upper(#[source] RootsError),
    /// The upper could not be read, or has what no layer can have.
    #[error("could not save the changes in {upper}")]
    Read {
        /// Which upper.
        upper: String,
        /// The cause.
        #[source]
        source: Box<LayerError>,
    },
    /// A pipe or a thread was not to be had.
    #[error("could not {action} to save the changes in {upper}")]
    Host {
        /// The operation, as an infinitive.
        action: &'static str,
        /// Which upper.
        upper: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The layer could not be stored.
    #[error("could not store the changes in {upper} as a layer")]
    Store {
        /// Which upper.
        upper: String,
        /// The cause.
        #[source]
        source: Box<ImagesError>,
    },
    /// What was stored is not what was read.
    #[error("the changes in {upper} were read as {read} but stored as {stored}")]
    Differs {
        /// Which upper.
        upper: String,
        /// What the reader has hashed.
        read: DiffId,
        /// What the store has hashed.
        stored: DiffId,
    },
}

impl SealError {
    /// The code that clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Upper(source) => source.code(),
            Self::Store { source, .. } => source.code(),
            Self::Read { .. } | Self::Host { .. } | Self::Differs { .. } => ErrorCode::Internal,
        }
    }
}

/// Saves what is in the upper `upper` as a layer above `parents` (base first).
///
/// Nothing may change the upper meanwhile: its sandbox is stopped, or frozen after a sync. `exclude`
/// are paths from the sandbox's root that are left out with everything below them.
pub async fn seal(
    store: &Arc<ImageStore>,
    roots: &Roots,
    upper: &str,
    parents: &[DiffId],
    exclude: Vec<PathBuf>,
) -> Result<Sealed, SealError> {
    let (uppers, id) = (Arc::clone(roots.uppers()), upper.to_owned());
    // It may have to be mounted first.
    let found = tokio::task::spawn_blocking(move || uppers.path(&id)).await;
    let directory = found
        .map_err(|error| SealError::Host {
            action: "finish a thread",
            upper: format!("upper `{upper}`"),
            source: io::Error::other(error),
        })?
        .map_err(SealError::Upper)?;
    let options = UpperOptions { exclude, ..UpperOptions::default() };
    seal_directory(store, format!("upper `{upper}`"), directory, parents, options).await
}

/// Saves a directory as a layer; `what` is what errors call it.
pub(crate) async fn seal_directory(
    store: &Arc<ImageStore>,
    what: String,
    directory: impl AsRef<Path> + Send + 'static,
    parents: &[DiffId],
    options: UpperOptions,
) -> Result<Sealed, SealError> {
    // What a root without changes looks like is a matter of the layer below it. If that is damaged, the
    // changes are saved all the same: at worst as a layer that changes nothing.
    let below = store.prove_layers(parents).await.ok();
    let below = below.and_then(|mut layers| layers.pop()).map(|top| top.index);
    let work = {
        let (store, what) = (Arc::clone(store), what.clone());
        tokio::task::spawn_blocking(move || {
            read(&store, &what, directory.as_ref(), below.as_deref(), &options)
        })
    };
    let read = work.await.map_err(|error| SealError::Host {
        action: "finish a thread",
        upper: what.clone(),
        source: io::Error::other(error),
    })??;
    let Some((pending, report)) = read else {
        return Ok(Sealed { layer: None, skipped_sockets: 0 });
    };
    for dropped in pending.dropped() {
        tracing::warn!(upper = what, path = dropped.path, reason = dropped.reason, "left out");
    }
    let hold = store.hold(&[pending.diff_id()]).await;
    let record = store
        .finish_layer(pending, parents)
        .await
        .map_err(|source| SealError::Store { upper: what, source: Box::new(source) })?;
    let layer = Some(SealedLayer { record, hold });
    Ok(Sealed { layer, skipped_sockets: report.skipped_sockets })
}

/// Tars the directory on one thread while this one stores, hashes and parses what comes.
fn read(
    store: &ImageStore,
    what: &str,
    directory: &Path,
    below: Option<&Path>,
    options: &UpperOptions,
) -> Result<Option<(PendingLayer, UpperReport)>, SealError> {
    let host = |action| move |source| SealError::Host { action, upper: what.to_owned(), source };
    if is_empty(directory).map_err(host("look at the directory"))? {
        let root = root_of(below).map_err(|source| SealError::Read {
            upper: what.to_owned(),
            source: Box::new(source),
        })?;
        if root.is_that_of(directory).map_err(host("look at the directory"))? {
            return Ok(None);
        }
    }
    let (reader, writer) = io::pipe().map_err(host("make a pipe"))?;
    // Fewer changes between the two threads; a smaller pipe is as right.
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20);
    std::thread::scope(|scope| {
        let tar = std::thread::Builder::new()
            .name("kiln-tar".to_owned())
            .spawn_scoped(scope, || write_upper_tar(directory, writer, options))
            .map_err(host("start a thread"))?;
        let stored = store.ingest(Box::new(reader) as Box<dyn Read + Send>, None);
        let written =
            tar.join().map_err(|_| host("read on a thread")(io::Error::other("it panicked")))?;
        match (written, stored) {
            (Ok(report), Ok(pending)) if report.diff_id == pending.diff_id() => {
                Ok(Some((pending, report)))
            }
            (Ok(report), Ok(pending)) => Err(SealError::Differs {
                upper: what.to_owned(),
                read: report.diff_id,
                stored: pending.diff_id(),
            }),
            // A store that gave up closes the pipe, which the writer then complains about.
            (Err(LayerError::WriteTar(_)) | Ok(_), Err(source)) => {
                Err(SealError::Store { upper: what.to_owned(), source: Box::new(source) })
            }
            (Err(source), _) => {
                Err(SealError::Read { upper: what.to_owned(), source: Box::new(source) })
            }
        }
    })
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    Ok(std::fs::read_dir(directory)?.next().is_none())
}
