//! Real archives and tools, made once and kept below the target directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::{FlockOperation, flock};

fn cache() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let cache = target.join("test-fixtures");
    std::fs::create_dir_all(&cache).unwrap();
    cache
}

/// The tar of a minimal Debian 12: `KILN_TEST_BASE_TAR`, or one that is made here.
pub(crate) fn debian_base() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KILN_TEST_BASE_TAR") {
        return Some(path.into());
    }
    made_once("bookworm-minbase.tar", |path| {
        Command::new("mmdebstrap")
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .args(["--quiet", "--variant=minbase", "--format=tar", "bookworm"])
            .arg(path)
            .stdin(Stdio::null())
            .output()
    })
}

/// The tools of erofs-utils 1.8, which know tar indexes.
pub(crate) struct ErofsUtils(PathBuf);

impl ErofsUtils {
    pub(crate) fn get() -> Option<Self> {
        made_once("trixie-erofs-utils", |path| {
            Command::new("mmdebstrap")
                .args(["--quiet", "--mode=root", "--variant=extract", "--format=directory"])
                .args(["--include=erofs-utils", "trixie"])
                .arg(path)
                .stdin(Stdio::null())
                .output()
        })
        .map(Self)
    }

    pub(crate) fn run(&self, tool: &str, args: &[&str]) -> Output {
        Command::new(self.0.join("usr/lib64/ld-linux-x86-64.so.2"))
            .arg("--library-path")
            .arg(self.0.join("usr/lib/x86_64-linux-gnu"))
            .arg(self.0.join("usr/bin").join(tool))
            .args(args)
            .output()
            .unwrap()
    }
}

/// Runs `make` unless its result is there; concurrent tests wait for each other.
fn made_once(name: &str, make: impl FnOnce(&Path) -> std::io::Result<Output>) -> Option<PathBuf> {
    let path = cache().join(name);
    let lock = File::create(cache().join(format!(".{name}.lock"))).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    if path.exists() {
        return Some(path);
    }
    let part = cache().join(format!(".{name}.part"));
    if part.is_dir() {
        std::fs::remove_dir_all(&part).unwrap();
    }
    match make(&part) {
        Ok(output) if output.status.success() => {
            std::fs::rename(&part, &path).unwrap();
            Some(path)
        }
        Ok(output) => {
            let log = String::from_utf8_lossy(&output.stderr);
            eprintln!("SKIP mmdebstrap cannot make {name}: {log}");
            None
        }
        Err(error) => {
            eprintln!("SKIP mmdebstrap cannot be run: {error}");
            None
        }
    }
}
