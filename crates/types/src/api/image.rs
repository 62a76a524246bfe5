//! Images.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::definition::ImageConfig;
use crate::digest::{DiffId, Digest};

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageInfo {
    /// The digest of its OCI manifest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// The names that point to it.
    pub names: Vec<String>,
    /// Its layers, base first.
    pub layers: Vec<ImageLayer>,
    /// The sum of its layers' tars, in bytes.
    pub size: u64,
    /// What sandboxes take from its config.
    pub config: ImageConfig,
    /// When it came into this store.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// One layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageLayer {
    /// The digest of its uncompressed tar.
    #[schema(value_type = String)]
    pub diff_id: DiffId,
    /// The size of that tar in bytes.
    pub size: u64,
}

/// `POST /v1/images/pull`: fetches an image from its registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// The OCI reference.
    pub reference: String,
    /// The local name; the reference's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The answer to `DELETE /v1/images/{name}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovedImage {
    /// The image that is gone; absent when only a name was removed and others still point to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub image: Option<Digest>,
    /// Bytes of layers that no other image needs and that were freed with it.
    pub bytes_freed: u64,
}
