//! The guest's second disk: the programs under test, the kernel's modules and what is to be done.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::guest;
use super::kernel::Kernel;
use super::report::Expected;
use crate::process;

const INIT: &str = include_str!("init.sh");
const CHECKS: &str = include_str!("checks.sh");

/// The end-to-end tests that have to do with the kernel. What takes long is left out, and what it takes more
/// of a host for than the guest is (a way to a registry, a C compiler, Debian's archive).
const TESTS: [&str; 15] = [
    "build::",
    "df::",
    "disks::",
    "draining::",
    "drivers::",
    "environment::",
    "exec::",
    "fsck::",
    "gc::",
    "hostile_guest::",
    "layer_modes::",
    "lifecycle::",
    "pull::",
    "snapshot::",
    "terminal::",
];
const LEFT_OUT: [&str; 4] = ["api::", "heavy_", "runsc", "s4_3_"];
/// Not for kernels that mount no EROFS out of plain files: one asks for EROFS by name, the other keeps its
/// data on a tmpfs, which has id-mapped mounts since Linux 6.3 only.
const WITH_EROFS: [&str; 2] = [
    "layers_are_mounted_in_another_way_after_a_restart",
    "a_host_without_erofs_takes_directories_unless_told_otherwise",
];

/// What was built.
pub(super) struct Programs {
    /// The program as users get it.
    kiln: PathBuf,
    /// The end-to-end tests.
    tests: PathBuf,
    /// Where these expect the program.
    place: PathBuf,
}

impl Programs {
    /// Builds them.
    pub(super) fn build() -> Result<Self> {
        let build = ["build", "--release", "--locked", "-p", "kiln-cli"];
        process::run(process::command("cargo", &build))?;
        let build = [
            "test",
            "--no-run",
            "--locked",
            "-p",
            "kiln-cli",
            "--test",
            "e2e",
            "--message-format=json",
        ];
        let messages = process::output(process::command("cargo", &build))?;
        let (mut tests, mut place) = (None, None);
        for message in messages.lines() {
            let message: Value = serde_json::from_str(message).context("cargo prints no JSON")?;
            let Some(executable) = message["executable"].as_str().map(PathBuf::from) else {
                continue;
            };
            match message["target"]["name"].as_str() {
                Some("e2e") => tests = Some(executable),
                Some("kiln") => place = Some(executable),
                _ => {}
            }
        }
        Ok(Self {
            kiln: crate::root().join("target/release/kiln"),
            tests: tests.context("cargo has built no end-to-end tests")?,
            place: place.context("cargo has built no program")?,
        })
    }
}

/// Makes the disk in `run`.
pub(super) fn make(kernel: &Kernel, programs: &Programs, run: &Path) -> Result<PathBuf> {
    let tree = run.join("payload");
    let workspace = tree.join("workspace-tree");
    for directory in ["bin", "modules", "workspace-tree/crates/cli"] {
        fs::create_dir_all(tree.join(directory))?;
    }
    let place = programs.place.strip_prefix(crate::root());
    let place = workspace.join(place.context("the program is not built in the workspace")?);
    fs::create_dir_all(place.parent().context("the program has no directory")?)?;
    for (from, to) in [
        (&programs.kiln, tree.join("bin/kiln")),
        (&programs.kiln, place),
        (&programs.tests, tree.join("bin/e2e")),
    ] {
        fs::copy(from, &to).with_context(|| format!("could not copy {}", from.display()))?;
    }
    let mut modules = process::command("cp", &["-a", "--link"]);
    modules.arg(kernel.modules()).arg(tree.join("modules/"));
    process::run(modules)?;
    let root = crate::root().to_str().context("the workspace's path is not UTF-8")?;
    for (name, text) in [
        ("init", INIT),
        ("checks", CHECKS),
        ("workspace", root),
        ("expect", if kernel.mounts_files { "erofs" } else { "directory" }),
        ("arguments", &arguments(kernel).join("\n")),
    ] {
        fs::write(tree.join(name), format!("{text}\n"))?;
    }
    let disk = run.join("payload.ext4");
    guest::format(&tree, &disk, "4G")?;
    fs::remove_dir_all(&tree).with_context(|| format!("could not remove {}", tree.display()))?;
    Ok(disk)
}

/// The checks and the tests of which a result must come.
pub(super) fn expected(kernel: &Kernel, programs: &Programs) -> Result<Expected> {
    let checks = CHECKS.lines().filter_map(|line| line.strip_prefix("check "));
    let checks = checks.filter_map(|check| check.split(' ').next()).map(str::to_owned).collect();
    let mut list = process::command(&programs.tests.to_string_lossy(), &["--list"]);
    list.args(arguments(kernel));
    let list = process::output(list)?;
    let tests = list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned);
    Ok(Expected { checks, tests: tests.collect() })
}

/// The arguments of the end-to-end tests.
fn arguments(kernel: &Kernel) -> Vec<&'static str> {
    let mut arguments = vec!["--color=never", "--test-threads=2"];
    for left_out in LEFT_OUT {
        arguments.extend(["--skip", left_out]);
    }
    if !kernel.mounts_files {
        for left_out in WITH_EROFS {
            arguments.extend(["--skip", left_out]);
        }
    }
    arguments.extend(TESTS);
    arguments
}
