//! What an image runs on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The operating system of this host, in Go's spelling as the specification wants it.
pub const HOST_OS: &str = "linux";

/// The architecture of this host, in Go's spelling as the specification wants it.
pub const HOST_ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else if cfg!(target_arch = "riscv64") {
    "riscv64"
} else {
    std::env::consts::ARCH
};

/// `os/architecture[/variant]` of one entry of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// Architecture in Go's spelling.
    pub architecture: String,
    /// Operating system in Go's spelling.
    pub os: String,
    /// Variant of the architecture (`v8`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this host.
    pub fn host() -> Self {
        Self { architecture: HOST_ARCHITECTURE.into(), os: HOST_OS.into(), variant: None }
    }

    /// Whether an image for this platform runs on this host. Variants that need more than the
    /// baseline of the architecture do not count as running here.
    pub fn runs_here(&self) -> bool {
        let variant = self.variant.as_deref().unwrap_or_default();
        let baseline = match HOST_ARCHITECTURE {
            "amd64" => matches!(variant, "" | "v1"),
            "arm64" => matches!(variant, "" | "v8" | "8"),
            _ => variant.is_empty(),
        };
        self.os == HOST_OS && self.architecture == HOST_ARCHITECTURE && baseline
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os.escape_debug(), self.architecture.escape_debug())?;
        if let Some(variant) = &self.variant {
            write!(f, "/{}", variant.escape_debug())?;
        }
        Ok(())
    }
}
