//! Builds.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::definition::ImageDefinition;
use crate::digest::Digest;
use crate::event::BuildFailure;
use crate::id::BuildId;
use crate::template::TemplateSpec;

/// `POST /v1/builds`: starts a build, answers at once with its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildRequest {
    /// What to build.
    pub source: BuildSource,
    /// The name the image gets; a template's own name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Resolve the base again instead of using the pinned one.
    #[serde(default)]
    pub pull: bool,
    /// Run every step, whatever the cache has.
    #[serde(default)]
    pub no_cache: bool,
    /// Accept bare shell operators as argv elements of `run` steps.
    #[serde(default)]
    pub literal: bool,
}

/// What to build, by front end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BuildSource {
    /// A template.
    Template(TemplateSpec),
    /// An image definition.
    Definition(ImageDefinition),
}

/// A build job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildInfo {
    /// Its id.
    #[schema(value_type = String)]
    pub id: BuildId,
    /// Its state.
    pub status: BuildStatus,
    /// The name the image gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image, once `status` is `succeeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub image: Option<Digest>,
    /// The definition key, once the base is resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub definition_key: Option<Digest>,
    /// How many steps the definition has.
    pub steps_total: u32,
    /// How many of them were answered from the cache.
    pub steps_cached: u32,
    /// Why it failed, once `status` is `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<BuildFailure>,
    /// When the job was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

/// The state of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BuildStatus {
    /// Accepted or running.
    Running,
    /// The image exists.
    Succeeded,
    /// It failed, or the daemon died while it ran.
    Failed,
}
