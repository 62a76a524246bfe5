//! The documents of the OCI image specification that an image consists of.
//!
//! Written: byte for byte the same for the same content, whoever writes them and when. Read: within
//! limits, unknown fields passed over, and nothing believed that the rest of the image does not bear out.

mod config;
mod manifest;
mod platform;

use std::collections::BTreeMap;

use kiln_types::json::{self, JsonError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

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
/// The largest blob of a layer that a manifest may name, in bytes: 1 TiB.
pub const LAYER_LIMIT: u64 = 1 << 40;
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
    Json(#[source] JsonError),
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

    /// Reads a document: each key once, objects as objects, and no key that is one of `known` but for
    /// the case of its letters. Other readers pass over case, and would see another document.
    fn read<T>(bytes: &[u8], limit: u64, known: &[&str]) -> Result<T, Self>
    where
        T: DeserializeOwned + Serialize,
    {
        Self::check_size(bytes, limit)?;
        let document: T = json::from_slice(bytes).map_err(Self::Json)?;
        let keys: BTreeMap<String, Value> = serde_json::from_slice(bytes).unwrap_or_default();
        for key in keys.keys() {
            if known.iter().any(|known| known != key && known.eq_ignore_ascii_case(key)) {
                let problem = "readers differ on whether this is the field of the same name";
                return Err(Self::field("(key)", key, problem));
            }
        }
        Ok(document)
    }

    fn check_size(bytes: &[u8], limit: u64) -> Result<(), Self> {
        let found = bytes.len() as u64;
        if found > limit { Err(Self::TooLarge { found, limit }) } else { Ok(()) }
    }
}
