//! What the image store could not do.

use std::io;
use std::path::PathBuf;

use kiln_content::ContentError;
use kiln_layer::LayerError;
use kiln_metadata::MetadataError;
use kiln_types::error::ErrorCode;
use kiln_types::{DiffId, Digest};

use crate::oci::DocumentError;

/// One failed operation on images or layers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImagesError {
    /// A file of the store could not be used.
    #[error("could not {action} {}", path.display())]
    Io {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A blob operation failed.
    #[error("could not {action}")]
    Blob {
        /// The operation, as an infinitive: `store the config of the image`.
        action: &'static str,
        /// The cause.
        #[source]
        source: ContentError,
    },
    /// A database operation failed.
    #[error("could not {action}")]
    Metadata {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The cause.
        #[source]
        source: MetadataError,
    },
    /// A layer's archive was not read; nothing of it is kept.
    #[error("the layer {} was not taken in", layer.as_ref().map_or_else(|| "archive".to_owned(), ToString::to_string))]
    ReadLayer {
        /// What the layer was announced as.
        layer: Option<DiffId>,
        /// The cause.
        #[source]
        source: LayerError,
    },
    /// A layer's content is not what was announced; nothing of it is kept.
    #[error("the layer unpacks to {found}, not to {expected} as its image says")]
    WrongDiffId {
        /// What was announced.
        expected: DiffId,
        /// What came.
        found: DiffId,
    },
    /// The index of a layer could not be written or read.
    #[error("could not index layer {layer}")]
    Index {
        /// The layer.
        layer: DiffId,
        /// The cause.
        #[source]
        source: LayerError,
    },
    /// A layer that an image needs is not in the store.
    #[error("layer {layer} is not in the store; pull or build its image again")]
    LayerMissing {
        /// The layer.
        layer: DiffId,
    },
    /// A layer's tar is gone or has the wrong size.
    #[error("layer {layer} is damaged in the store; remove its image, then pull or build it again")]
    LayerDamaged {
        /// The layer.
        layer: DiffId,
        /// The cause.
        #[source]
        source: ContentError,
    },
    /// A layer's index names tars that are no part of the image below it.
    #[error("the index of layer {layer} refers to {device}, which is not below it in the image")]
    ForeignDevice {
        /// The layer.
        layer: DiffId,
        /// The tar that its index names.
        device: DiffId,
    },
    /// More layers than an image may have.
    #[error("the image has {found} layers, more than the {limit} that a sandbox can have below it")]
    TooManyLayers {
        /// How many it has.
        found: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A manifest or config is not usable.
    #[error("the {document} is not usable")]
    Document {
        /// Which one: `manifest sha256:…`.
        document: String,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// Manifest, config and layers do not belong together.
    #[error("the parts of image {image} do not fit: {problem}")]
    Mismatch {
        /// Digest of the manifest.
        image: Digest,
        /// What disagrees.
        problem: String,
    },
    /// No such image.
    #[error("no image is called `{text}`; `kiln images` lists what there is")]
    NotFound {
        /// What was asked for.
        text: String,
    },
    /// What was asked for is neither a name nor a digest.
    #[error("`{text}` is not an image: {problem}")]
    NotAName {
        /// What was asked for, shortened.
        text: String,
        /// Why.
        problem: String,
    },
    /// A short digest fits several images.
    #[error("`{text}` is the beginning of {count} image digests; give more digits")]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// How many fit.
        count: usize,
    },
    /// Something needs the image.
    #[error("image {image} is in use by {}; remove that first", users.join(", "))]
    InUse {
        /// The image.
        image: Digest,
        /// Ids of sandboxes and names of snapshots.
        users: Vec<String>,
    },
    /// Nothing may be taken for unneeded as long as rows may be missing.
    #[error("the database is damaged ({damage}), so nothing is removed; `kiln fsck` says more")]
    DatabaseDamaged {
        /// The first of what is wrong with it.
        damage: String,
    },
    /// The daemon ends, and takes no more work.
    #[error("the operation was cut off because the daemon is shutting down")]
    ShuttingDown,
}

impl ImagesError {
    /// The code that clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Io { source, .. } => of_io(source),
            Self::Blob { source, .. } => of_content(source),
            Self::Metadata { source, .. } => source.code(),
            Self::ReadLayer { source, .. } | Self::Index { source, .. } => of_layer(source),
            Self::WrongDiffId { .. }
            | Self::TooManyLayers { .. }
            | Self::Document { .. }
            | Self::Mismatch { .. } => ErrorCode::InvalidRequest,
            Self::LayerMissing { .. }
            | Self::LayerDamaged { .. }
            | Self::ForeignDevice { .. }
            | Self::DatabaseDamaged { .. } => ErrorCode::StoreCorrupt,
            Self::NotFound { .. } => ErrorCode::ImageNotFound,
            Self::NotAName { .. } | Self::Ambiguous { .. } => ErrorCode::InvalidReference,
            Self::InUse { .. } => ErrorCode::ImageInUse,
            Self::ShuttingDown => ErrorCode::Internal,
        }
    }
}

fn of_io(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::StorageFull,
        _ => ErrorCode::Internal,
    }
}

fn of_content(error: &ContentError) -> ErrorCode {
    match error {
        ContentError::Io { source, .. } => of_io(source),
        _ => ErrorCode::StoreCorrupt,
    }
}

fn of_layer(error: &LayerError) -> ErrorCode {
    match error {
        error if error.is_bad_layer() => ErrorCode::InvalidRequest,
        LayerError::WriteTar(source) | LayerError::WriteIndex { source, .. } => of_io(source),
        LayerError::DamagedIndex { .. } => ErrorCode::StoreCorrupt,
        _ => ErrorCode::Internal,
    }
}
