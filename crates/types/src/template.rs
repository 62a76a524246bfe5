//! `TemplateSpec`: the JSON description of a template (requirement S4.3).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A template as users write it. The front end translates it to an image definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateSpec {
    /// The image's name, optionally with `:tag`.
    pub name: String,
    /// A catalog name (`debian-12`), an OCI reference, or the path of a rootfs directory or tarball.
    pub base_image: String,
    /// Packages for `apt-get install --no-install-recommends`.
    #[serde(default)]
    pub apt_packages: Vec<String>,
    /// Shell commands, run in order by `/bin/sh -c` as root.
    #[serde(default)]
    pub setup_commands: Vec<String>,
    /// Environment of every later step and of every process in the sandbox.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Default number of virtual CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<u32>,
    /// Default memory limit in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
}
