//! Debian packages that the demo and the tests need.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// What the demo needs: Kiln makes its Debian base with mmdebstrap, and some crates build C.
pub(crate) const DEMO: &[&str] =
    &["gcc", "libc6-dev", "mmdebstrap", "ca-certificates", "e2fsprogs"];

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
    "python3",
    "python3-venv",
    "iproute2",
    "runc",
    "crun",
];

/// What the benchmarks need besides: the peers. runsc is not always to be had, see `bench`.
pub(crate) const BENCH: &[&str] = &[
    "gcc",
    "libc6-dev",
    "mmdebstrap",
    "ca-certificates",
    "git",
    "runc",
    "crun",
    "podman",
    "buildah",
    "netavark",
    "aardvark-dns",
    "iptables",
    "golang-github-containers-common",
    "umoci",
    "skopeo",
    "docker-registry",
    "gzip",
    "tar",
];

/// What machines with other kernels need.
pub(crate) const KERNELS: &[&str] = &[
    "gcc",
    "libc6-dev",
    "mmdebstrap",
    "ca-certificates",
    "busybox-static",
    "e2fsprogs",
    "kmod",
    "xz-utils",
    "qemu-system-x86",
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

/// Where apt finds what newer releases of Debian have for this one.
const BACKPORTS: &str = "/etc/apt/sources.list.d/kiln-backports.sources";

/// Installs gVisor: that of Debian 12 itself is too old. Says why it is not there where that fails; the
/// tests that need it then say that they were skipped.
pub(crate) fn install_runsc() {
    if runsc_is_usable() {
        return;
    }
    if let Err(error) = runsc_from_backports() {
        eprintln!("xtask: no runsc, what needs it is left out: {error:#}");
    }
}

fn runsc_from_backports() -> Result<()> {
    if !is_root() {
        bail!("it takes root to install it");
    }
    let release = std::fs::read_to_string("/etc/os-release").context("this is no Debian")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("/etc/os-release names no release")?.trim_matches('"');
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    if codename == "bookworm" {
        add_backports()?;
        arguments.extend(["-t", "bookworm-backports"]);
    }
    arguments.push("runsc");
    let mut install = process::command("apt-get", &arguments);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    process::run(install)
}

/// Adds the backports of Debian 12, from the mirror that the release itself comes from.
fn add_backports() -> Result<()> {
    let targets = indextargets()?;
    let of = |suite: &str| -> Option<String> {
        let mut uris =
            targets.lines().filter_map(|line| line.strip_prefix(suite)?.strip_prefix(' '));
        Some(uris.next()?.trim_end_matches('/').to_owned())
    };
    if of("bookworm-backports").is_some() {
        return Ok(());
    }
    let mirror = of("bookworm").context("no source of Debian's own packages was found")?;
    let source = format!(
        "Types: deb\nURIs: {mirror}\nSuites: bookworm-backports\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    );
    std::fs::write(BACKPORTS, source).with_context(|| format!("could not write {BACKPORTS}"))?;
    let mut update = process::command("apt-get", &["update", "-qq"]);
    update.env("DEBIAN_FRONTEND", "noninteractive");
    let updated = process::run(update);
    if updated.is_err() {
        // A source that is not there would fail every later update. The first error is the one to report.
        let _ = std::fs::remove_file(BACKPORTS);
    }
    updated.context("could not refresh the package lists")
}

/// What apt knows, a line each: the suite and where it comes from.
fn indextargets() -> Result<String> {
    let arguments = ["indextargets", "--format", "$(CODENAME) $(REPO_URI)"];
    let targets = Command::new("apt-get").args(arguments).output().context("could not ask apt")?;
    Ok(String::from_utf8_lossy(&targets.stdout).into_owned())
}

fn runsc_is_usable() -> bool {
    // The first with the platform `systrap` is of 2023.
    let version = Command::new("runsc").arg("--version").stderr(Stdio::null()).output();
    version.is_ok_and(|output| {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut parts = said.split(|c: char| !c.is_ascii_digit());
        parts.find(|part| part.len() == 8).is_some_and(|date| date > "20230327")
    })
}
