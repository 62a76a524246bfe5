//! Builds the guest agent, so that the product is one file.
//!
//! The agent is a static executable with a profile of its own, so it is built by a cargo of its own,
//! in a target directory of its own beside the one in use: the outer cargo holds the lock of that
//! one until this script ends. `KILN_AGENT_BINARY` names a ready agent to embed instead.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the outer build sets for itself and must not reach the agent's.
const OUTER: [&str; 9] = [
    "RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_INCREMENTAL",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
];

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    let workspace = workspace.canonicalize().expect("the workspace is two directories up");
    watch(&workspace);
    let agent = match env::var_os("KILN_AGENT_BINARY") {
        Some(ready) => {
            println!("cargo:rerun-if-changed={}", Path::new(&ready).display());
            PathBuf::from(ready)
        }
        None => build(&workspace, &target_directory(&out)),
    };
    let embedded = out.join("kiln-agent");
    if let Err(error) = std::fs::copy(&agent, &embedded) {
        panic!("could not copy {} to {}: {error}", agent.display(), embedded.display());
    }
}

fn watch(workspace: &Path) {
    println!("cargo:rerun-if-env-changed=KILN_AGENT_BINARY");
    let watched = [
        "Cargo.toml",
        "Cargo.lock",
        "crates/agent/Cargo.toml",
        "crates/agent/src",
        "crates/protocol/Cargo.toml",
        "crates/protocol/src",
        "crates/runtime/build.rs",
    ];
    for path in watched {
        println!("cargo:rerun-if-changed={}", workspace.join(path).display());
    }
}

/// Shared by all profiles: `<target>/agent-build`. `OUT_DIR` is
/// `<target>[/<triple>]/<profile>/build/<package>-<hash>/out`.
fn target_directory(out: &Path) -> PathBuf {
    let tagged = out.ancestors().skip(4).find(|path| path.join("CACHEDIR.TAG").is_file());
    let fallback = || out.ancestors().nth(4).expect("OUT_DIR is that deep");
    tagged.unwrap_or_else(fallback).join("agent-build")
}

fn build(workspace: &Path, target_directory: &Path) -> PathBuf {
    let target = variable("TARGET");
    assert!(
        target.contains("-linux-"),
        "the agent runs on Linux; for target {target} set KILN_AGENT_BINARY to a built one"
    );
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet", "--package", "kiln-agent", "--profile", "agent"])
        .args(["--target", &target])
        .arg("--manifest-path")
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_directory);
    if workspace.join("Cargo.lock").is_file() {
        command.arg("--locked");
    }
    for name in OUTER {
        command.env_remove(name);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace));
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("building the agent ended with {status}: {command:?}"),
        Err(error) => panic!("could not start cargo for the agent: {error}: {command:?}"),
    }
    target_directory.join(target).join("agent").join("kiln-agent")
}

/// Static, and without paths of this machine in it. Separated as `CARGO_ENCODED_RUSTFLAGS` wants.
fn flags(workspace: &Path) -> OsString {
    let mut flags = OsString::from("-Ctarget-feature=+crt-static");
    let mut remap = |from: &Path, to: &str| {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    };
    remap(workspace, "kiln");
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    if let Some(home) = home {
        remap(&home, "cargo");
    }
    flags
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
