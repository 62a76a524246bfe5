//! What a pull tells while it runs.

use std::fmt;
use std::time::Duration;

use kiln_types::Digest;

/// One event of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PullProgress {
    /// A source did not have the image or did not answer; the next one is asked.
    SourceFailed {
        /// The host.
        source: String,
        /// Why, one line.
        reason: String,
    },
    /// It is known which image will be pulled.
    Resolved {
        /// Digest of the image's manifest.
        digest: Digest,
        /// The host that answered.
        source: String,
        /// Number of layers.
        layers: usize,
        /// Sum of the layers' sizes as they are stored in the registry, in bytes.
        size: u64,
    },
    /// A layer is in the store already.
    LayerPresent {
        /// Digest of the layer's blob.
        layer: Digest,
    },
    /// Bytes of a layer came.
    LayerProgress {
        /// Digest of the layer's blob.
        layer: Digest,
        /// Bytes so far.
        done: u64,
        /// Its size in bytes.
        total: u64,
    },
    /// A layer came whole and has the right digests.
    LayerDone {
        /// Digest of the layer's blob.
        layer: Digest,
    },
    /// Something failed that is tried again.
    Retrying {
        /// What was asked for.
        what: String,
        /// Why, one line.
        reason: String,
        /// The pause before the next attempt.
        pause: Duration,
    },
    /// The image is in the store.
    Finished {
        /// Digest of the image's manifest.
        digest: Digest,
    },
}

impl fmt::Display for PullProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match self {
            Self::SourceFailed { source, reason } => write!(f, "{source} is passed over: {reason}"),
            Self::Resolved { digest, source, layers, size } => write!(
                f,
                "image {digest} from {source}: {layers} layers, {} MiB",
                size.div_ceil(MIB)
            ),
            Self::LayerPresent { layer } => write!(f, "layer {}: already here", layer.short()),
            Self::LayerProgress { layer, done, total } => {
                write!(f, "layer {}: {} of {} MiB", layer.short(), done / MIB, total.div_ceil(MIB))
            }
            Self::LayerDone { layer } => write!(f, "layer {}: done", layer.short()),
            Self::Retrying { what, reason, pause } => {
                write!(f, "{what}: {reason}; trying again in {} ms", pause.as_millis())
            }
            Self::Finished { digest } => write!(f, "image {digest} is complete"),
        }
    }
}
