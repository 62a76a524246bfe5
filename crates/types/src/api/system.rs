//! The daemon and its host.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/health`. Needs no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always `ok` when the daemon answers at all.
    pub status: String,
    /// The daemon's version.
    pub version: String,
    /// Running sandboxes.
    pub sandboxes_running: u64,
}

/// What `kiln doctor` finds out about a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorReport {
    /// Whether sandboxes can run here.
    pub usable: bool,
    /// The single findings.
    pub checks: Vec<Check>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// The verdict.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The verdict of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// There, and works.
    Ok,
    /// Missing, but Kiln has another way.
    Degraded,
    /// Missing, and Kiln cannot do without.
    Missing,
}
