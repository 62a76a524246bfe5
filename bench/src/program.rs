//! Running a program and taking its time; none may run for ever.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

/// No program of a benchmark takes as long.
const DEADLINE: Duration = Duration::from_mins(5);

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// From before it was started until it was seen to have ended.
    pub time: Duration,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A command from words.
pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(words: &[S]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// Runs to the end, whatever that is. Output goes to files, since something that is left running may hold
/// on to it.
pub(crate) fn run(command: &mut Command) -> Result<Done> {
    let shown = shown(command);
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    command.process_group(0);
    watch();
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("could not start {shown}"))?;
    watched().insert(child.id(), start + DEADLINE);
    let status = child.wait();
    let time = start.elapsed();
    watched().remove(&child.id());
    let status = status.with_context(|| format!("could not wait for {shown}"))?;
    Ok(Done { time, status, stdout: text(&mut stdout)?, stderr: text(&mut stderr)? })
}

/// Runs to the end, and fails when the program does.
pub(crate) fn succeed(command: &mut Command) -> Result<Done> {
    let done = run(command)?;
    let shown = shown(command);
    ensure!(done.status.success(), "{shown}: {}\n{}{}", done.status, done.stdout, done.stderr);
    Ok(done)
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Asks all programs that run to end.
pub(crate) fn end_all() {
    watched().keys().for_each(|&pid| signal(pid, Signal::TERM));
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _gone = kill_process_group(pid, signal);
    }
}

static WATCHED: Mutex<BTreeMap<u32, Instant>> = Mutex::new(BTreeMap::new());

fn watched() -> std::sync::MutexGuard<'static, BTreeMap<u32, Instant>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread ends whatever is past its deadline, so that the timed path waits for nothing but the child.
fn watch() {
    static WATCHER: OnceLock<()> = OnceLock::new();
    WATCHER.get_or_init(|| {
        thread::spawn(|| {
            loop {
                thread::sleep(Duration::from_secs(1));
                let now = Instant::now();
                for (&pid, _) in watched().iter().filter(|&(_, &deadline)| deadline < now) {
                    signal(pid, Signal::KILL);
                }
            }
        });
    });
}
