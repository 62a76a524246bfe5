//! The documents of the OCI image specification that an image consists of.
//!
//! Written: byte for byte the same for the same content, whoever writes them and when. Read: within
//! limits, unknown fields passed over, and nothing believed that the rest of the image does not bear out.

mod config;
mod manifest;
mod platform;

pub use config::{History, OciConfig, config_bytes, image_config};
pub use manifest::{Descriptor, Index, Manifest, manifest_bytes};
pub use platform::{HOST_ARCHITECTURE, HOST_OS, Platform};

/// Media type of an OCI manifest.
pub const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI image config.
pub const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer as an uncompressed tar.
pub const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a Docker schema 2 manifest.
pub const MEDIA_DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Docker manifest list.
pub const MEDIA_DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of a Docker image config.
pub const MEDIA_DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The largest manifest or index that is read, in bytes.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// The largest config that is read, in bytes.
pub const CONFIG_LIMIT: u64 = 8 << 20;

/// Why a manifest or config is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is too large.
    #[error("it has {found} bytes, more than {limit}")]
    TooLarge {
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// It is not the JSON that it must be.
    #[error("it is not valid JSON of its kind")]
    Json(#[source] serde_json::Error),
    /// A field has a value that is not accepted.
    #[error("the field `{field}` is `{value}`: {problem}")]
    Field {
        /// The field, as a path.
        field: String,
        /// Its value, shortened, with control characters escaped.
        value: String,
        /// Why not.
        problem: &'static str,
    },
}

impl DocumentError {
    pub(crate) fn field(field: impl Into<String>, value: &str, problem: &'static str) -> Self {
        let value: String = value.chars().take(120).collect();
        Self::Field { field: field.into(), value: value.escape_debug().to_string(), problem }
    }

    fn check_size(bytes: &[u8], limit: u64) -> Result<(), Self> {
        let found = bytes.len() as u64;
        if found > limit { Err(Self::TooLarge { found, limit }) } else { Ok(()) }
    }
}
