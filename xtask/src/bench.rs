//! Kiln and its peers side by side: installs the peers, builds, and hands over to `kiln-bench`.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, ensure};

use crate::{packages, process};

/// Runs the benchmarks with `arguments` of `kiln-bench`.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let measures =
        !arguments.iter().any(|argument| ["--report", "--list", "--help"].contains(argument));
    let mut build = vec!["build", "--release", "--locked", "-p", "kiln-bench"];
    if measures {
        ensure!(packages::is_root(), "the benchmarks make namespaces and mounts: run them as root");
        packages::install(packages::BENCH)?;
        packages::install_runsc();
        build.extend(["-p", "kiln-cli"]);
    }
    process::run(process::command("cargo", &build))?;
    let program = crate::root().join("target/release/kiln-bench");
    let program = program.to_str().context("the path of the workspace is not UTF-8")?;
    // In the place of this program: who ends it means that one, which has much to put away.
    let error = process::command(program, arguments).exec();
    Err(error).with_context(|| format!("could not start {program}"))
}
