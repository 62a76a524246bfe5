//! The image config: what Kiln takes from one, and how it writes its own.

use std::collections::BTreeMap;

use kiln_types::{DiffId, ImageConfig};
use serde::{Deserialize, Serialize};

use super::{CONFIG_LIMIT, DocumentError, HOST_ARCHITECTURE, HOST_OS};

/// Entries of one list of a config.
const LIST_LIMIT: usize = 4096;
/// Bytes of one environment variable or argument: the kernel's own limit for one string of `execve`.
const STRING_LIMIT: usize = 128 << 10;
/// Bytes of a path or a user.
const PATH_LIMIT: usize = 4096;
/// The fields of the document that Kiln reads.
const FIELDS: &[&str] = &["architecture", "config", "os", "rootfs"];
/// The time in what Kiln writes: equal content is to have equal digests.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// An image config as it is stored. Only the fields that Kiln reads or writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciConfig {
    /// Architecture in Go's spelling.
    #[serde(default)]
    pub architecture: String,
    /// What containers get from it.
    #[serde(default)]
    pub config: Option<Execution>,
    /// RFC 3339. Written, never read: nothing depends on it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// How the layers came to be. Written, never read.
    #[serde(skip_deserializing)]
    pub history: Vec<History>,
    /// Operating system in Go's spelling.
    #[serde(default)]
    pub os: String,
    /// The layers.
    pub rootfs: RootFs,
}

/// Execution parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    #[serde(skip_serializing_if = "none_or_empty")]
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "none_or_empty")]
    entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "none_or_empty")]
    env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<String>,
}

/// One line of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Whether it left the files alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// The layers of a config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Digests of the uncompressed layers, base first.
    pub diff_ids: Vec<DiffId>,
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn none_or_empty(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

impl OciConfig {
    /// Reads a config; the values inside it are checked by [`image_config`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let config: Self = DocumentError::read(bytes, CONFIG_LIMIT, FIELDS)?;
        if !matches!(config.rootfs.kind.as_str(), "" | "layers") {
            let problem = "only `layers` is supported";
            return Err(DocumentError::field("rootfs.type", &config.rootfs.kind, problem));
        }
        Ok(config)
    }
}

/// The config of an image of this host's platform, without anything that depends on when or where it
/// was made. `created_by` has one line for each layer, base first; lines beyond or short of that are
/// kept as lines that made no layer, and each layer then gets a line of its own.
pub fn config_bytes(config: &ImageConfig, layers: &[DiffId], created_by: &[String]) -> Vec<u8> {
    let line = |text: Option<&String>, empty_layer| History {
        created: Some(CREATED.to_owned()),
        created_by: text.cloned(),
        empty_layer,
    };
    let history = if created_by.len() == layers.len() {
        created_by.iter().map(|text| line(Some(text), false)).collect()
    } else {
        let steps = created_by.iter().map(|text| line(Some(text), true));
        layers.iter().map(|_| line(None, false)).chain(steps).collect()
    };
    let list = |values: &[String]| (!values.is_empty()).then(|| values.to_vec());
    let document = OciConfig {
        architecture: HOST_ARCHITECTURE.to_owned(),
        config: Some(Execution {
            cmd: list(&config.cmd),
            entrypoint: list(&config.entrypoint),
            env: Some(config.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            labels: (!config.labels.is_empty()).then(|| config.labels.clone()),
            user: config.user.clone(),
            working_dir: config.workdir.clone(),
        }),
        created: Some(CREATED.to_owned()),
        history,
        os: HOST_OS.to_owned(),
        rootfs: RootFs { diff_ids: layers.to_vec(), kind: "layers".to_owned() },
    };
    serde_json::to_vec(&document).expect("a config has only strings")
}

/// What sandboxes take from a config, checked.
pub fn image_config(config: &OciConfig) -> Result<ImageConfig, DocumentError> {
    let Some(execution) = config.config.clone() else { return Ok(ImageConfig::default()) };
    let mut env = BTreeMap::new();
    for entry in strings("config.Env", execution.env)? {
        let refuse = |problem| DocumentError::field("config.Env", &entry, problem);
        let (name, value) = entry.split_once('=').ok_or_else(|| refuse("it has no `=`"))?;
        if name.is_empty() {
            return Err(refuse("the name before `=` is empty"));
        }
        env.insert(name.to_owned(), value.to_owned());
    }
    let labels = execution.labels.unwrap_or_default();
    if labels.len() > LIST_LIMIT {
        let count = labels.len().to_string();
        return Err(DocumentError::field("config.Labels", &count, "there are more than 4096"));
    }
    let workdir = text("config.WorkingDir", execution.working_dir)?;
    if let Some(path) = workdir.as_deref().filter(|path| !path.starts_with('/')) {
        let problem = "a working directory must be an absolute path";
        return Err(DocumentError::field("config.WorkingDir", path, problem));
    }
    Ok(ImageConfig {
        env,
        workdir,
        user: text("config.User", execution.user)?,
        entrypoint: strings("config.Entrypoint", execution.entrypoint)?,
        cmd: strings("config.Cmd", execution.cmd)?,
        labels,
    })
}

fn strings(field: &str, values: Option<Vec<String>>) -> Result<Vec<String>, DocumentError> {
    let values = values.unwrap_or_default();
    if values.len() > LIST_LIMIT {
        let count = values.len().to_string();
        return Err(DocumentError::field(field, &count, "there are more than 4096 entries"));
    }
    for value in &values {
        if value.contains('\0') {
            return Err(DocumentError::field(field, value, "it has a NUL character"));
        }
        if value.len() > STRING_LIMIT {
            return Err(DocumentError::field(field, value, "it is longer than 128 KiB"));
        }
    }
    Ok(values)
}

/// A short text; the empty one is the same as none.
fn text(field: &str, value: Option<String>) -> Result<Option<String>, DocumentError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    if value.chars().any(char::is_control) {
        return Err(DocumentError::field(field, &value, "it has a control character"));
    }
    if value.len() > PATH_LIMIT {
        return Err(DocumentError::field(field, &value, "it is longer than 4096 bytes"));
    }
    Ok(Some(value))
}

#[cfg(test)]
mod tests;
