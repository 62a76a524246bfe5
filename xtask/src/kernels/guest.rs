//! The guest's root file system: a minimal Debian 12 with what Kiln and its tests need of a host.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process;

/// What the guest has besides the essential packages.
const PACKAGES: &str = "apache2-utils,busybox-static,ca-certificates,crun,docker-registry,e2fsprogs,\
    hostname,iproute2,kmod,nftables,openssl,procps,runc,util-linux,zstd";
/// Room for what the tests write; the file is sparse.
const SIZE: &str = "8G";

/// The disk, made unless it is there with these packages. A machine does not change it.
pub(super) fn disk(directory: &Path) -> Result<PathBuf> {
    let disk = directory.join("guest.ext4");
    let made_of = directory.join("guest.packages");
    if disk.exists() && fs::read_to_string(&made_of).is_ok_and(|made_of| made_of == PACKAGES) {
        return Ok(disk);
    }
    let tree = directory.join("guest");
    if tree.exists() {
        fs::remove_dir_all(&tree)
            .with_context(|| format!("could not remove {}", tree.display()))?;
    }
    let include = format!("--include={PACKAGES}");
    let mut make = process::command(
        "mmdebstrap",
        &["--quiet", "--variant=minbase", "--format=directory", &include, "bookworm"],
    );
    make.arg(&tree);
    process::run(make)?;
    format(&tree, &disk, SIZE)?;
    fs::write(&made_of, PACKAGES)
        .with_context(|| format!("could not write {}", made_of.display()))?;
    fs::remove_dir_all(&tree)
        .with_context(|| format!("could not remove {}", tree.display()))
        .map(|()| disk)
}

/// A disk of this size with the files of a directory.
pub(super) fn format(tree: &Path, disk: &Path, size: &str) -> Result<()> {
    if disk.exists() {
        fs::remove_file(disk).with_context(|| format!("could not remove {}", disk.display()))?;
    }
    let mut format = process::command("mke2fs", &["-q", "-t", "ext4", "-d"]);
    format.arg(tree).arg(disk).arg(size);
    process::run(format)
}
