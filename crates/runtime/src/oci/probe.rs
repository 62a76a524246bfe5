//! Whether a runtime is there, and which.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::OciConfig;
use super::flavour::Flavour;
use super::program::{self, ProgramError};
use crate::cgroup::{Hierarchy, Mode};
use crate::sys::Surroundings;

/// How long a runtime may take to say its version.
const DEADLINE: Duration = Duration::from_secs(5);

/// The oldest version of gVisor, as the date of its release, that has the platform `systrap`.
const OLDEST_RUNSC: u32 = 20_230_327;

/// A runtime that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its program.
    pub path: PathBuf,
    /// What it says about its version.
    pub version: String,
    /// Whether it is started where the host's version 2 control groups are not to be seen: it would refuse
    /// to work beside them, and needs only those of version 1.
    pub hides_groups: bool,
}

/// Why a runtime cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// There is no such program.
    #[error("there is no program {}", path.display())]
    Missing {
        /// As configured.
        path: PathBuf,
    },
    /// It does not say its version.
    #[error("{} does not say its version", path.display())]
    Version {
        /// The program.
        path: PathBuf,
        /// What it did instead.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is too old.
    #[error("{} is {version}, which is too old: {needed}", path.display())]
    Old {
        /// The program.
        path: PathBuf,
        /// What it says about its version.
        version: String,
        /// What it lacks.
        needed: &'static str,
    },
}

/// Examines a runtime. Blocks for at most five seconds, and leaves nothing behind.
pub fn probe(config: &OciConfig) -> Result<Found, ProbeError> {
    let path =
        find(&config.path).ok_or_else(|| ProbeError::Missing { path: config.path.clone() })?;
    let mut command = Command::new(&path);
    command.arg("--version").current_dir("/");
    let said = program::run(command, Surroundings::default(), DEADLINE);
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| ProbeError::Version {
        path: path.clone(),
        source,
    };
    let said = said.map_err(|error: ProgramError| failed(error.into()))?;
    let version = version(config.flavour, &said).ok_or_else(|| {
        let first = said.lines().next().unwrap_or_default();
        failed(io::Error::other(format!("it says {first:?}")).into())
    })?;
    if config.flavour == Flavour::Runsc
        && released(&version).is_some_and(|date| date < OLDEST_RUNSC)
    {
        let needed = "the platform systrap came in March 2023";
        return Err(ProbeError::Old { path, version, needed });
    }
    let hides_groups = config.flavour.refuses_hybrid_groups() && hybrid();
    Ok(Found { path, version, hides_groups })
}

fn hybrid() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let groups = Hierarchy::detect("/sys/fs/cgroup".as_ref(), &mounts);
    groups.is_ok_and(|groups| groups.mode() == Mode::Hybrid)
}

/// `1.1.5+ds1` out of `runc version 1.1.5+ds1`.
fn version(flavour: Flavour, said: &str) -> Option<String> {
    said.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let version = words.next().filter(|word| *word == "version").and(words.next())?;
        (name == flavour.name()).then(|| version.to_owned())
    })
}

/// 20240729 out of `0.0~20240729.0` or `release-20240729.0`; `None` for a build without a date.
fn released(version: &str) -> Option<u32> {
    let digits = |part: &&str| part.len() == 8 && part.bytes().all(|byte| byte.is_ascii_digit());
    version.split(|c: char| !c.is_ascii_digit()).find(digits)?.parse().ok()
}

/// The program that a path or a name means.
pub(super) fn find(program: &Path) -> Option<PathBuf> {
    let usable = |path: &Path| {
        rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
    };
    if program.components().count() > 1 {
        return usable(program).then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where root's programs are, for a daemon that was started with a user's PATH.
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(program)).find(|path| usable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let cases = [
            (Flavour::Runc, "runc version 1.1.5+ds1\ncommit: x\n", Some("1.1.5+ds1")),
            (Flavour::Crun, "crun version 1.8.1\n", Some("1.8.1")),
            (Flavour::Runsc, "runsc version 0.0~20240729.0\nspec: 1\n", Some("0.0~20240729.0")),
            (Flavour::Runsc, "runc version 1.1.5\n", None),
            (Flavour::Runc, "", None),
        ];
        for (flavour, said, expected) in cases {
            assert_eq!(version(flavour, said).as_deref(), expected, "{said}");
        }
        for (version, date) in [
            ("0.0~20221219.0-2", Some(20_221_219)),
            ("release-20250101.0", Some(20_250_101)),
            ("VERSION_MISSING", None),
        ] {
            assert_eq!(released(version), date, "{version}");
        }
    }

    #[test]
    fn what_is_missing_or_something_else_is_said() {
        let config = |path: &str| OciConfig { path: path.into(), ..OciConfig::new(Flavour::Runc) };
        let missing = probe(&config("no-such-runtime"));
        assert!(matches!(missing, Err(ProbeError::Missing { .. })), "{missing:?}");
        if rustix::process::geteuid().is_root() {
            let other = probe(&config("/bin/true"));
            assert!(matches!(other, Err(ProbeError::Version { .. })), "{other:?}");
        }
    }
}
