//! `cargo xtask load`: a load on a real daemon, and whether anything is left of it.

use anyhow::Result;

use crate::{packages, process};

/// Passes its options on to `kiln-load`. With `--quick` on the programs that the tests have built
/// already; else on those that users get.
pub(crate) fn run(options: &[&str]) -> Result<()> {
    if packages::is_root() {
        packages::install(packages::TEST)?;
    }
    let quick = options.contains(&"--quick");
    let profile = if quick { "debug" } else { "release" };
    let mut build = vec!["build", "--quiet", "--locked", "-p", "kiln-cli", "-p", "kiln-load"];
    if !quick {
        build.push("--release");
    }
    process::run(process::command("cargo", &build))?;
    let target = crate::root().join("target").join(profile);
    let (load, kiln) = (target.join("kiln-load"), target.join("kiln"));
    let (load, kiln) = (load.to_string_lossy(), kiln.to_string_lossy());
    let arguments = [&["--kiln", &*kiln], options].concat();
    process::run(process::command(&load, &arguments))
}
