//! Static checks and all tests.

use std::time::Instant;

use anyhow::Result;

use crate::{checks, deps, process, rows};

/// Everything that needs no installation: format, lints, arrows, file sizes, tests, rows, doc tests.
pub(crate) fn ci() -> Result<()> {
    let start = Instant::now();
    process::run(process::command("cargo", &["fmt", "--all", "--check"]))?;
    checks::tree()?;
    deps::check()?;
    process::run(process::command(
        "cargo",
        &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
    ))?;
    eprintln!("xtask: static checks done after {} s", start.elapsed().as_secs());
    let tests =
        process::run(process::command("cargo", &["nextest", "run", "--workspace", "--locked"]));
    let report = rows::report(tests.is_ok());
    tests?;
    report?;
    process::run(process::command("cargo", &["test", "--workspace", "--doc", "--locked"]))?;
    eprintln!("xtask: checks and tests done after {} s", start.elapsed().as_secs());
    Ok(())
}
