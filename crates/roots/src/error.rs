//! What could not be done with a root, a layer's mount or an upper.

use std::io;
use std::path::PathBuf;

use kiln_types::error::ErrorCode;

/// One failed operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootsError {
    /// The kernel did not mount a layer.
    #[error("could not mount the layer index {}: {step} failed{}", index.display(), said(kernel))]
    Layer {
        /// The index file.
        index: PathBuf,
        /// The system call, and its parameter where it has one.
        step: &'static str,
        /// What the kernel says about it, if anything.
        kernel: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A layer's index is not to be read, or is not what the writer of indexes makes.
    #[error("could not read the layer index {}", index.display())]
    Index {
        /// The index file.
        index: PathBuf,
        /// The cause.
        #[source]
        source: Box<kiln_layer::LayerError>,
    },
    /// The files that a layer is made of do not belong together.
    #[error("the layer index {} does not belong to its tars: {problem}", index.display())]
    Mismatch {
        /// The index file.
        index: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// An entry of a layer could not be made as a file of the host.
    #[error("could not lay out `{entry}` of the layer index {}: {step} failed", index.display())]
    LayOut {
        /// The index file.
        index: PathBuf,
        /// The entry's path in the layer, escaped.
        entry: String,
        /// The system call, and what for.
        step: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A mount could not be cloned or given the sandbox's ids.
    #[error("could not map the owners of {what} to the sandbox's ids: {step} failed")]
    Idmap {
        /// What was to be mapped.
        what: String,
        /// The system call.
        step: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel did not mount the overlay.
    #[error("could not mount the root over upper `{upper}`: {step} failed{}", said(kernel))]
    Overlay {
        /// The upper's id.
        upper: String,
        /// The system call, and its parameter where it has one.
        step: &'static str,
        /// What the kernel says about it, if anything.
        kernel: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The overlay was mounted, but nothing can be written to it.
    #[error("the root over upper `{upper}` was mounted read-only by the kernel")]
    ReadOnly {
        /// The upper's id.
        upper: String,
    },
    /// A probe of the mounted root failed.
    #[error("the root over upper `{upper}` does not take a new file")]
    Probe {
        /// The upper's id.
        upper: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The disk image of an upper could not be made, attached or mounted.
    #[error("could not use the disk image {image}: {step} failed{}", said(kernel))]
    Image {
        /// Which image.
        image: String,
        /// The system call, and its parameter where it has one.
        step: &'static str,
        /// What the kernel says about it, if anything.
        kernel: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The program that makes file systems did not.
    #[error("`mke2fs` could not make a file system: {problem}")]
    Format {
        /// What happened, and the way out.
        problem: String,
    },
    /// No disk can be of this size.
    #[error(
        "a disk of {bytes} bytes is not possible; it must have between {} MiB and {} MiB",
        crate::UpperLimits::LEAST >> 20,
        crate::UpperLimits::MOST >> 20
    )]
    Size {
        /// The size.
        bytes: u64,
    },
    /// The upper was mounted without durability before and may miss data after a crash.
    #[error("upper `{id}` belongs to a build step and cannot be mounted a second time")]
    VolatileUpper {
        /// The upper's id.
        id: String,
    },
    /// The thread that mounts with the sandbox's ids did not start or did not end as it should.
    #[error("the thread that mounts the root over upper `{upper}` failed")]
    Thread {
        /// The upper's id.
        upper: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A text is not usable as an upper's id.
    #[error(
        "`{}` is not an upper's id: use 1 to 128 letters, digits, `_`, `-` and `.`, beginning with a letter or digit, and not ending in `.ext4`",
        id.escape_debug()
    )]
    BadId {
        /// The text.
        id: String,
    },
    /// No upper with this id.
    #[error("there is no upper `{id}`")]
    NoUpper {
        /// The id.
        id: String,
    },
    /// The id is taken.
    #[error("there is an upper `{id}` already")]
    UpperExists {
        /// The id.
        id: String,
    },
    /// A file operation failed.
    #[error("could not {action} {}", path.display())]
    Io {
        /// The operation, as an infinitive.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl RootsError {
    /// The code that clients see.
    pub fn code(&self) -> ErrorCode {
        let (Self::Io { source, .. }
        | Self::Layer { source, .. }
        | Self::LayOut { source, .. }
        | Self::Overlay { source, .. }
        | Self::Image { source, .. }
        | Self::Probe { source, .. }) = self
        else {
            return ErrorCode::Internal;
        };
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::StorageFull,
            _ => ErrorCode::Internal,
        }
    }
}

fn said(kernel: &str) -> String {
    if kernel.is_empty() { String::new() } else { format!(" (the kernel says: {kernel})") }
}
