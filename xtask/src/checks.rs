//! Rules of the tree that no compiler checks.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::process;

const MOST_LINES: usize = 800;
const DRAWERS: [&str; 6] = ["utils", "util", "common", "helpers", "misc", "manager"];

/// No source file above the limit, and no file named after nothing.
pub(crate) fn tree() -> Result<()> {
    let files = process::output(process::command(
        "git",
        &["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"],
    ))?;
    let mut faults = Vec::new();
    let mut sizes = Vec::new();
    for file in files.lines() {
        let path = crate::root().join(file);
        if !path.exists() {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {file}"))?;
        let lines = text.lines().count();
        sizes.push(lines);
        if lines > MOST_LINES {
            faults.push(format!("{file} has {lines} lines; the limit is {MOST_LINES}"));
        }
        let drawer = |part: &str| DRAWERS.contains(&part.trim_end_matches(".rs"));
        if file.split('/').any(drawer) {
            faults.push(format!("{file} is named after no subject"));
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    sizes.sort_unstable();
    let median = sizes.get(sizes.len() / 2).copied().unwrap_or_default();
    eprintln!("xtask: {} source files, median {median} lines", sizes.len());
    Ok(())
}
