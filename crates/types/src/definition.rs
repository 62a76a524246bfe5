//! The image definition: the one intermediate form that every front end produces and the engine builds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::canonical::{canonical_json, keyed};
use crate::digest::{ChainId, Digest};

/// Base, ordered steps, and nothing else: sizes, names and resource limits are not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageDefinition {
    /// What the first step stands on.
    pub base: Base,
    /// The steps, in order.
    #[serde(default)]
    pub steps: Vec<Step>,
}

impl ImageDefinition {
    /// The definition key: the canonical definition with its base resolved to layers and config.
    pub fn key(&self, base: Option<&ChainId>, config: &ImageConfig) -> Digest {
        let base = base.map_or_else(String::new, ToString::to_string);
        keyed(
            "definition",
            &[base.as_bytes(), &canonical_json(config), &canonical_json(&self.steps)],
        )
    }
}

/// Where a build starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// A name of the catalog (`debian-12`): ordered sources, the first that answers is taken and pinned.
    Catalog(String),
    /// An OCI reference (`docker.io/library/debian:bookworm-slim`). Never falls back to anything else.
    Reference(String),
    /// An absolute path on the daemon's host: a root directory, or a tarball of one (plain, gzip, zstd).
    Rootfs(String),
    /// An image of this store, by name or digest.
    Image(String),
}

/// One build instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// `apt-get update && apt-get install -y --no-install-recommends`, lists removed afterwards.
    Apt {
        /// Package names, each optionally `=version`.
        packages: Vec<String>,
    },
    /// `pip install`.
    Pip {
        /// Requirement specifiers.
        packages: Vec<String>,
    },
    /// `npm install --global`.
    Npm {
        /// Package specifiers.
        packages: Vec<String>,
    },
    /// Runs a command; a non-zero exit code fails the build.
    Run {
        /// What is run.
        command: RunCommand,
    },
    /// Writes one file with the given content.
    File(FileStep),
    /// Sets variables for every later step and every process of the sandbox.
    Env {
        /// Names and values; values may hold any characters but NUL.
        vars: BTreeMap<String, String>,
    },
    /// Makes a directory and sets it as the working directory of later steps and of the sandbox.
    Workdir {
        /// Absolute path.
        path: String,
    },
    /// Sets the user of later steps and of the sandbox.
    User {
        /// `name`, `uid`, `name:group` or `uid:gid`.
        user: String,
    },
    /// Sets what a sandbox runs when no command is given.
    Cmd {
        /// Program and arguments.
        argv: Vec<String>,
    },
}

/// How a `run` step's command is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunCommand {
    /// By `/bin/sh -c`.
    Shell(String),
    /// Directly, without a shell.
    Argv(Vec<String>),
}

/// The content and the attributes of a file to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileStep {
    /// Absolute path; missing directories above it are made with mode 0755.
    pub path: String,
    /// The content in standard base64.
    pub content_base64: String,
    /// Permission bits; 0644 by default.
    #[serde(default = "FileStep::default_mode")]
    pub mode: u32,
}

impl FileStep {
    const fn default_mode() -> u32 {
        0o644
    }
}

/// The parts of an OCI image config that sandboxes and later steps see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ImageConfig {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; `/workspace` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// User; root when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Program that `cmd` is given to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Default command or arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The default working directory of every sandbox.
pub const DEFAULT_WORKDIR: &str = "/workspace";

/// `PATH` when an image sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
