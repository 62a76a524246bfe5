//! The committed OpenAPI document.

use std::fs;

use anyhow::{Context as _, Result};

use crate::process;

/// Writes `docs/openapi.json` from the routes. A test fails when it is not what this would write.
pub(crate) fn write() -> Result<()> {
    let document = process::output(process::command(
        "cargo",
        &["run", "--quiet", "--release", "--locked", "-p", "kiln-cli", "--", "openapi"],
    ))?;
    let path = crate::root().join("docs/openapi.json");
    fs::write(&path, document).with_context(|| format!("could not write {}", path.display()))
}
