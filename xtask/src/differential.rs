//! `cargo xtask differential`: the long form of the comparison that the tests make in short.

use anyhow::Result;

use crate::process;

/// Runs the comparison; it checks its own arguments.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let mut command = process::command(
        "cargo",
        &["run", "--quiet", "--package", "kiln-adversary", "--", "differential"],
    );
    command.args(arguments);
    process::run(command)
}
