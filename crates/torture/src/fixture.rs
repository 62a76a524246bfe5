//! The root file system of the sandboxes.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Applets that the harness uses.
const APPLETS: [&str; 12] =
    ["sh", "cat", "echo", "sync", "mkdir", "dd", "rm", "ls", "true", "sleep", "test", "head"];

/// A tar with nothing but a static busybox, made in `directory`.
pub(crate) fn busybox(directory: &Path) -> Result<PathBuf> {
    let tree = directory.join("rootfs");
    for name in ["bin", "etc", "root", "tmp"] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(tree.join("etc/group"), "root:x:0:\n")?;
    fs::write(tree.join("marker"), "base\n")?;
    fs::copy("/bin/busybox", tree.join("bin/busybox"))
        .context("/bin/busybox is missing; install busybox-static")?;
    for applet in APPLETS {
        let link = tree.join("bin").join(applet);
        if fs::symlink_metadata(&link).is_err() {
            symlink("busybox", link)?;
        }
    }
    let path = directory.join("rootfs.tar");
    let file = File::create(&path)?;
    let status = Command::new("tar")
        .args(["--sort=name", "--mtime=@1700000000", "--owner=0", "--group=0", "--numeric-owner"])
        .arg("-C")
        .arg(&tree)
        .args(["-cf", "-", "."])
        .stdout(file)
        .status()?;
    ensure!(status.success(), "tar: {status}");
    Ok(path)
}
