//! `cargo xtask kernels`: Kiln on the stock kernels of Debian 12, each in a machine that QEMU emulates.
//!
//! KVM is not used: a host that is a guest itself may have `/dev/kvm` and yet not run a stock kernel by it.

mod guest;
mod initrd;
mod kernel;
mod machine;
mod payload;
mod report;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use self::kernel::Kernel;
use self::payload::Programs;
use self::report::Report;
use crate::packages;

/// The stock kernel of Debian 12, and the one that it has for newer hardware.
const VERSIONS: [&str; 2] = ["6.1", "6.12"];

/// Runs the checks on the kernels of these versions, such as `6.1`.
pub(crate) fn run(versions: &[&str]) -> Result<()> {
    if let Some(odd) = versions.iter().find(|version| !is_version(version)) {
        bail!("`{odd}` is not a kernel version; name some as in `cargo xtask kernels 6.1 6.12`");
    }
    ensure!(packages::is_root(), "the guest's root file system takes root to make: run it as root");
    packages::install(packages::KERNELS)?;
    let directory = directory()?;
    let programs = Programs::build()?;
    let disk = guest::disk(&directory)?;
    let mut failed = Vec::new();
    for version in if versions.is_empty() { &VERSIONS[..] } else { versions } {
        let kernel = Kernel::fetch(version, &directory)?;
        let run = directory.join(format!("run-{version}"));
        if run.exists() {
            fs::remove_dir_all(&run)
                .with_context(|| format!("could not remove {}", run.display()))?;
        }
        fs::create_dir_all(&run).with_context(|| format!("could not make {}", run.display()))?;
        let initrd = initrd::make(&kernel, &run)?;
        let payload = payload::make(&kernel, &programs, &run)?;
        let expected = payload::expected(&kernel, &programs)?;
        eprintln!(
            "xtask: Linux {} in a machine; its console is in {}",
            kernel.release,
            run.display()
        );
        let start = Instant::now();
        let lines = machine::run(&kernel, &initrd, &[&disk, &payload], &run)?;
        let report = Report::of(&lines, &expected);
        println!("Linux {}: {} ({} s)", kernel.release, report, start.elapsed().as_secs());
        if !report.is_good() {
            failed.push(kernel.release);
        }
    }
    ensure!(failed.is_empty(), "not everything holds on Linux {}", failed.join(", "));
    Ok(())
}

fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    parts.len() == 2 && parts.iter().all(is_number)
}

/// Where kernels, the guest's disk and the consoles are kept.
fn directory() -> Result<PathBuf> {
    let directory = crate::root().join("target/kernels");
    fs::create_dir_all(&directory)
        .with_context(|| format!("could not make {}", directory.display()))?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::is_version;

    #[test]
    fn versions_are_two_numbers() {
        for (text, is) in
            [("6.1", true), ("6.12", true), ("6", false), ("6.x", false), ("-h", false)]
        {
            assert_eq!(is_version(text), is, "{text}");
        }
    }
}
