//! The crash and fault harness: a daemon with fail points, and `kiln-torture`, which drives it.

use std::fs;

use anyhow::{Context as _, Result};

use crate::process;

/// Where the two programs are put: what else is built meanwhile does not replace them.
const PLACE: &str = "target/torture";

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
        ],
    ))?;
    let (built, place) = (crate::root().join("target/debug"), crate::root().join(PLACE));
    fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
    for program in ["kiln", "kiln-torture"] {
        let file = place.join(program);
        // One that runs cannot be written to.
        let draft = place.join(format!("{program}.new"));
        fs::copy(built.join(program), &draft)
            .and_then(|_| fs::rename(&draft, &file))
            .with_context(|| file.display().to_string())?;
    }
    let mut command = process::command(&place.join("kiln-torture").to_string_lossy(), &[]);
    command.arg("--kiln").arg(place.join("kiln")).args(arguments);
    process::run(command)
}
