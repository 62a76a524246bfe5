//! Why a program did not start, in words that name what was asked for.

use std::ffi::CString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_protocol::StartErrorKind;

use super::program::Program;
use crate::sys::{Report, Stage};

/// Why a program did not start.
#[derive(Debug)]
pub(crate) struct StartError {
    pub(crate) kind: StartErrorKind,
    pub(crate) message: String,
}

impl StartError {
    pub(crate) fn new(kind: StartErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The agent itself could not do something.
    pub(crate) fn system(action: &str, error: &std::io::Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
                StartErrorKind::ResourceLimit
            }
            _ => StartErrorKind::Other,
        };
        Self::new(kind, format!("could not {action}: {error}"))
    }
}

/// What the child said, in words.
pub(crate) fn explain(report: &Report, program: &Program, cwd: &Path, user: &str) -> StartError {
    let error = &report.error;
    match report.stage {
        Stage::Session => StartError::new(
            StartErrorKind::NoTerminal,
            format!("could not take a terminal: {error}"),
        ),
        Stage::Stdio => StartError::system("connect its input and output", error),
        Stage::Ids => StartError::new(
            StartErrorKind::UserNotPermitted,
            format!("could not become user `{user}`: {error}"),
        ),
        Stage::Cwd => explain_cwd(report, cwd, user),
        Stage::Exec => explain_exec(report, program, cwd, user),
    }
}

fn explain_cwd(report: &Report, cwd: &Path, user: &str) -> StartError {
    let cwd = cwd.display();
    match report.error.raw_os_error() {
        Some(libc::ENOENT) => StartError::new(
            StartErrorKind::CwdNotFound,
            format!("working directory {cwd} is not in the sandbox"),
        ),
        Some(libc::ENOTDIR) => StartError::new(
            StartErrorKind::CwdNotUsable,
            format!("working directory {cwd} is not a directory"),
        ),
        Some(libc::EACCES) => StartError::new(
            StartErrorKind::CwdNotUsable,
            format!("user `{user}` may not enter working directory {cwd}"),
        ),
        _ => StartError::new(
            StartErrorKind::CwdNotUsable,
            format!("working directory {cwd}: {}", report.error),
        ),
    }
}

fn explain_exec(report: &Report, program: &Program, cwd: &Path, user: &str) -> StartError {
    let present: Vec<PathBuf> = program.candidates.iter().map(|path| below(cwd, path)).collect();
    let present = present.into_iter().find(|path| path.exists());
    match (report.error.raw_os_error(), present) {
        (Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG), None) => {
            StartError::new(StartErrorKind::NotFound, program.absence())
        }
        (Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG), Some(path)) => {
            StartError::new(StartErrorKind::NotFound, missing_interpreter(&path))
        }
        (Some(libc::EACCES), Some(path)) if path.is_dir() => StartError::new(
            StartErrorKind::NotExecutable,
            format!("{} is a directory", path.display()),
        ),
        (Some(libc::EACCES), path) => {
            let path = path.map_or_else(|| program.name(), |path| path.display().to_string());
            StartError::new(
                StartErrorKind::NotExecutable,
                format!("user `{user}` may not execute {path}"),
            )
        }
        (Some(libc::ENOEXEC), path) => {
            let path = path.map_or_else(|| program.name(), |path| path.display().to_string());
            StartError::new(
                StartErrorKind::NotExecutable,
                format!(
                    "{path} is neither a program for this machine nor a script with a `#!` line"
                ),
            )
        }
        (Some(libc::E2BIG), _) => StartError::new(
            StartErrorKind::TooBig,
            "arguments and environment together are larger than the kernel accepts",
        ),
        (Some(libc::EAGAIN | libc::ENOMEM), _) => {
            StartError::system("load the program", &report.error)
        }
        _ => StartError::new(
            StartErrorKind::NotExecutable,
            format!("could not execute {}: {}", program.name(), report.error),
        ),
    }
}

/// The file is there, so what the kernel did not find is the program that it names.
fn missing_interpreter(path: &Path) -> String {
    let mut start = Vec::new();
    if let Ok(file) = File::open(path) {
        let _a_partial_line_serves_too = file.take(256).read_to_end(&mut start);
    }
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match line.strip_prefix(b"#!") {
        Some(interpreter) => format!(
            "{} is there, but its interpreter `{}` is not in the sandbox",
            path.display(),
            String::from_utf8_lossy(interpreter.trim_ascii())
        ),
        None => format!(
            "{} is there, but its dynamic loader is not in the sandbox (built for another system?)",
            path.display()
        ),
    }
}

fn below(cwd: &Path, path: &CString) -> PathBuf {
    cwd.join(std::ffi::OsStr::from_bytes(path.as_bytes()))
}
