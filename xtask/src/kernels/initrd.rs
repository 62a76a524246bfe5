//! What the guest's kernel needs before it has a disk: a busybox and the modules for the disks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::kernel::Kernel;
use crate::process;

const INIT: &str = include_str!("initrd.sh");
const MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];

/// Makes the archive in `run`.
pub(super) fn make(kernel: &Kernel, run: &Path) -> Result<PathBuf> {
    let tree = run.join("initrd");
    let modules = tree.join("modules");
    fs::create_dir_all(tree.join("bin"))?;
    fs::create_dir_all(&modules)?;
    fs::copy("/bin/busybox", tree.join("bin/busybox")).context("could not copy /bin/busybox")?;
    let mut order = String::new();
    for module in needed(kernel)? {
        let name = copy(&module, &modules)?;
        order += &name;
        order.push('\n');
    }
    fs::write(modules.join("order"), order)?;
    fs::write(tree.join("init"), INIT)?;
    let script = "chmod 755 init && find . | /bin/busybox cpio -o -H newc >../initrd.cpio";
    let mut pack = process::command("sh", &["-e", "-c", script]);
    pack.current_dir(&tree);
    process::run(pack)?;
    Ok(run.join("initrd.cpio"))
}

/// The files of the modules and of what they depend on, in the order in which they are loaded.
fn needed(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for module in MODULES {
        let mut ask =
            process::command("modprobe", &["--show-depends", "-S", &kernel.release, "-d"]);
        ask.arg(&kernel.files).arg(module);
        // What is built in has a line that begins otherwise.
        for line in process::output(ask)?.lines() {
            if let Some(file) = line.strip_prefix("insmod ").map(|file| PathBuf::from(file.trim()))
                && seen.insert(file.clone())
            {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// Copies a module, unpacked, and gives its name there.
fn copy(module: &Path, into: &Path) -> Result<String> {
    let name = module.file_name().context("a module has no name")?.to_string_lossy().into_owned();
    let Some(plain) = name.strip_suffix(".xz") else {
        fs::copy(module, into.join(&name))
            .with_context(|| format!("could not copy {}", module.display()))?;
        return Ok(name);
    };
    let mut unpack = process::command("xz", &["--decompress", "--stdout"]);
    unpack.arg(module).stdout(fs::File::create(into.join(plain))?);
    process::run(unpack)?;
    Ok(plain.to_owned())
}
