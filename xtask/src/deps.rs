//! The arrows between crates: each points to a lower level (docs/architecture.md, "Crates").

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process;

/// Level of every crate. An edge is allowed when it leads to a lower level.
const LEVELS: [(&str, u32); 16] = [
    ("kiln-types", 0),
    ("kiln-protocol", 0),
    ("kiln-failpoint", 0),
    ("kiln-agent", 1),
    ("kiln-content", 1),
    ("kiln-layer", 1),
    ("kiln-metadata", 1),
    ("kiln-client", 1),
    ("kiln-images", 2),
    ("kiln-roots", 2),
    ("kiln-runtime", 2),
    ("kiln-registry", 3),
    ("kiln-frontend", 3),
    ("kiln-build", 4),
    ("kiln-server", 5),
    ("kiln-cli", 6),
];

/// Crates that only tests and tasks use: they may use any, and nothing but tests may use them.
const DEV: [&str; 6] =
    ["kiln-adversary", "kiln-bench", "kiln-load", "kiln-testkit", "kiln-torture", "xtask"];

/// Fails on the first edge that the table forbids.
pub(crate) fn check() -> Result<()> {
    let text = process::output(process::command(
        "cargo",
        &["metadata", "--format-version", "1", "--no-deps", "--locked"],
    ))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let levels = BTreeMap::from(LEVELS);
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().context("no packages")? {
        let name = package["name"].as_str().context("a package has no name")?;
        if DEV.contains(&name) {
            continue;
        }
        let Some(level) = levels.get(name) else {
            faults.push(format!("{name} is not in the table of xtask/src/deps.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().context("no dependencies")? {
            let target = dependency["name"].as_str().unwrap_or_default();
            if !dependency["source"].is_null() {
                let source = dependency["source"].as_str().unwrap_or_default();
                if !source.starts_with("registry+") {
                    faults.push(format!("{name} takes {target} from {source}"));
                }
                continue;
            }
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            match levels.get(target) {
                Some(lower) if lower < level => {}
                _ => faults.push(format!("{name} (level {level}) must not depend on {target}")),
            }
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    eprintln!("xtask: the arrows between {} crates are as planned", levels.len());
    Ok(())
}
