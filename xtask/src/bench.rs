//! Kiln and its peers side by side: installs the peers, builds, and hands over to `kiln-bench`.

use std::process::Command;

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
        install_runsc()?;
        build.extend(["-p", "kiln-cli"]);
    }
    process::run(process::command("cargo", &build))?;
    let program = crate::root().join("target/release/kiln-bench");
    let program = program.to_str().context("the path of the workspace is not UTF-8")?;
    process::run(process::command(program, arguments))
}

/// runsc with the systrap platform, which needs no KVM. Debian 12 itself has an older one; its backports
/// have it. Where there is none, the benchmarks go without.
fn install_runsc() -> Result<()> {
    let has_systrap = || {
        let help = Command::new("runsc").arg("flags").output();
        help.is_ok_and(|help| {
            [help.stdout, help.stderr]
                .iter()
                .any(|text| String::from_utf8_lossy(text).contains("systrap"))
        })
    };
    if has_systrap() {
        return Ok(());
    }
    let versions = process::output(process::command("apt-cache", &["madison", "runsc"]))?;
    let source = versions
        .lines()
        .find_map(|line| line.split_whitespace().find(|word| word.ends_with("-backports/main")));
    let mut words = vec!["install", "-y", "-qq", "--no-install-recommends", "runsc"];
    let suite = source.and_then(|source| source.strip_suffix("/main"));
    words.extend(suite.iter().flat_map(|suite| ["-t", *suite]));
    let mut install = process::command("apt-get", &words);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    if let Err(error) = process::run(install) {
        eprintln!("xtask: no runsc: {error:#}");
    }
    Ok(())
}
