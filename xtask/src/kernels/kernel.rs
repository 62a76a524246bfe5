//! A kernel of Debian, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::process;

/// An unpacked kernel.
pub(super) struct Kernel {
    /// What `uname -r` says of it.
    pub(super) release: String,
    /// The package's files.
    pub(super) files: PathBuf,
    /// Whether it is built to mount EROFS out of plain files.
    pub(super) mounts_files: bool,
}

impl Kernel {
    /// Downloads the newest kernel of this version that apt knows, unless it is there, and unpacks it.
    pub(super) fn fetch(version: &str, directory: &Path) -> Result<Self> {
        let package = newest(version)?;
        let release = package.trim_start_matches("linux-image-").to_owned();
        let files = directory.join(&release);
        if !files.exists() {
            unpack(&package, &files, directory)?;
        }
        let config = files.join("boot").join(format!("config-{release}"));
        let config = fs::read_to_string(&config)
            .with_context(|| format!("could not read {}", config.display()))?;
        let mounts_files = config.lines().any(|line| line == "CONFIG_EROFS_FS_BACKED_BY_FILE=y");
        Ok(Self { release, files, mounts_files })
    }

    /// The kernel itself.
    pub(super) fn image(&self) -> PathBuf {
        self.files.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Its modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.files.join("lib/modules").join(&self.release)
    }
}

/// The name of the newest package with a kernel of this version.
fn newest(version: &str) -> Result<String> {
    let prefix = format!("linux-image-{version}.");
    let names = process::output(process::command("apt-cache", &["pkgnames", &prefix]))?;
    let newest = names.lines().filter(|name| is_stock(name)).max_by_key(|name| numbers(name));
    let missing = || {
        format!(
            "apt knows no kernel {version}; `apt-get update` refreshes its lists, and Debian 12 has newer kernels among its backports"
        )
    };
    newest.map(str::to_owned).with_context(missing)
}

/// Whether it is a kernel for all machines, signed as those that are installed are.
fn is_stock(package: &str) -> bool {
    package.ends_with("-amd64") && !package.contains("-cloud-") && !package.contains("-rt-")
}

/// The numbers of a name, by which a newer one is greater.
fn numbers(name: &str) -> Vec<u64> {
    let parts = name.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

fn unpack(package: &str, files: &Path, directory: &Path) -> Result<()> {
    let draft = directory.join(format!("{package}.new"));
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    fs::create_dir_all(&draft)?;
    // It is downloaded to a directory of root's, which apt's own user cannot write to.
    let download = ["-q", "-o", "APT::Sandbox::User=root", "download", package];
    let mut command = process::command("apt-get", &download);
    command.current_dir(&draft);
    process::run(command)?;
    let archive = fs::read_dir(&draft)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt has downloaded no {package}"))?;
    let tree = draft.join("files");
    let mut command = process::command("dpkg-deb", &["--extract"]);
    command.arg(&archive).arg(&tree);
    process::run(command)?;
    let release = package.trim_start_matches("linux-image-");
    let mut command = process::command("depmod", &["-b"]);
    command.arg(&tree).arg(release);
    process::run(command)?;
    ensure!(tree.join("boot").exists(), "{package} has no kernel in it");
    fs::rename(&tree, files).with_context(|| format!("could not make {}", files.display()))?;
    fs::remove_dir_all(&draft).with_context(|| format!("could not remove {}", draft.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_found_by_its_numbers() {
        let names = [
            "linux-image-6.12.9+deb12-amd64",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.30+bpo-amd64",
        ];
        let newest = names.into_iter().max_by_key(|name| numbers(name));
        assert_eq!(newest, Some(names[1]));
        for (name, is) in [
            (names[0], true),
            ("linux-image-6.1.0-56-cloud-amd64", false),
            ("linux-image-6.1.0-56-rt-amd64", false),
            ("linux-image-6.1.0-56-amd64-unsigned", false),
            ("linux-image-6.1.0-56-amd64-dbg", false),
        ] {
            assert_eq!(is_stock(name), is, "{name}");
        }
    }
}
