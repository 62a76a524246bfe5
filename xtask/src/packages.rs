//! Debian packages that the demo and the tests need.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// What the demo needs: Kiln makes its Debian base with mmdebstrap, and some crates build C.
pub(crate) const DEMO: &[&str] = &["gcc", "libc6-dev", "mmdebstrap", "ca-certificates"];

/// What the tests need besides: real peers and reference tools.
pub(crate) const TEST: &[&str] = &[
    "gcc",
    "libc6-dev",
    "mmdebstrap",
    "ca-certificates",
    "busybox-static",
    "e2fsprogs",
    "docker-registry",
    "apache2-utils",
    "openssl",
    "nftables",
    "musl-tools",
    "zstd",
    "gzip",
    "tar",
];

/// Installs what is missing.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        bail!(
            "these Debian packages are missing: {}; run as root to have them installed, or \
            install them with apt-get",
            missing.join(" ")
        );
    }
    let mut update = process::command("apt-get", &["update", "-qq"]);
    update.env("DEBIAN_FRONTEND", "noninteractive");
    process::run(update).context("could not refresh the package lists")?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    let mut install = process::command("apt-get", &arguments);
    // Packages that bring a service would otherwise start it.
    install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    process::run(install)
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"install ok installed")
}
