//! What the daemon finds first on its `PATH` in place of each program of the host: this harness by
//! another name. It asks the running harness what is to happen, and then is the program itself.
//!
//! Only for `mmdebstrap`, which would need a Debian archive, the harness has a file: a finished tar.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

/// The variable that names the directory of the stand-ins, which has these:
pub(crate) const VARIABLE: &str = "TORTURE_TOOLS";
/// where the harness listens,
pub(crate) const SOCKET: &str = "socket";
/// and what is given out as a Debian system.
pub(crate) const ARCHIVE: &str = "archive.tar";
/// The program whose work is that file.
pub(crate) const ARCHIVER: &str = "mmdebstrap";

/// What the harness answers.
pub(crate) const RUN: &str = "run";
pub(crate) const HALF: &str = "half";
pub(crate) const WHOLE: &str = "whole";

/// The name that this program was called by, if it is one of a stand-in.
pub(crate) fn name() -> Option<String> {
    std::env::var_os(VARIABLE)?;
    let called = std::env::args_os().next()?;
    let name = Path::new(&called).file_name()?.to_str()?;
    (!name.starts_with("kiln-")).then(|| name.to_owned())
}

/// Asks, and is the program.
pub(crate) fn run(name: &str) -> ExitCode {
    match act(name) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stand-in for {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(name: &str) -> Result<ExitCode> {
    let directory = PathBuf::from(std::env::var_os(VARIABLE).context("no directory is named")?);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Without a harness there is nothing to ask for.
    let mut harness = UnixStream::connect(directory.join(SOCKET)).ok();
    let answer = match &mut harness {
        Some(harness) => ask(harness, &format!("{name} {arguments:?}")),
        None => RUN.to_owned(),
    };
    if name == ARCHIVER {
        let tar = fs::read(directory.join(ARCHIVE)).context("there is no archive")?;
        let (first, second) = tar.split_at(tar.len() / 2);
        let mut out = std::io::stdout().lock();
        out.write_all(first)?;
        if let (HALF, Some(harness)) = (answer.as_str(), &mut harness) {
            out.flush()?;
            ask(harness, HALF);
        }
        out.write_all(second)?;
        out.flush()?;
        if let (WHOLE, Some(harness)) = (answer.as_str(), &mut harness) {
            ask(harness, WHOLE);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let program = find(name, &directory).with_context(|| format!("{name} is not installed"))?;
    let mut command = Command::new(program);
    command.args(&arguments);
    if let (WHOLE, Some(harness)) = (answer.as_str(), &mut harness) {
        let status = command.status()?;
        if status.success() {
            ask(harness, WHOLE);
        }
        let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        return Ok(ExitCode::from(code));
    }
    Err(command.exec().into())
}

/// Says a line and waits for one; an end of the harness lets everything go on.
fn ask(harness: &mut UnixStream, line: &str) -> String {
    let mut answer = String::new();
    if writeln!(harness, "{line}").is_ok() {
        let _ended = BufReader::new(harness).read_line(&mut answer);
    }
    answer.trim_end().to_owned()
}

/// The program itself: what there would be on the `PATH` without the stand-ins.
pub(crate) fn find(name: &str, directory: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .filter(|place| place != directory)
        .map(|place| place.join(name))
        .find(|file| file.is_file())
}
