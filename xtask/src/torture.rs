//! The crash and fault harness: a daemon with fail points, and `kiln-torture`, which drives it.

use anyhow::Result;

use crate::process;

/// A directory of its own for compiled files: the daemon's ordinary build is not touched.
const TARGET: &str = "target/torture";

/// Builds both programs and runs the harness with `arguments`.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    process::run(process::command(
        "cargo",
        &[
            "build",
            "--locked",
            "--package",
            "kiln-cli",
            "--package",
            "kiln-torture",
            "--features",
            "kiln-cli/failpoints",
            "--target-dir",
            TARGET,
        ],
    ))?;
    let directory = crate::root().join(TARGET).join("debug");
    let kiln = directory.join("kiln");
    let mut command = process::command(&directory.join("kiln-torture").to_string_lossy(), &[]);
    command.arg("--kiln").arg(kiln).args(arguments);
    process::run(command)
}
