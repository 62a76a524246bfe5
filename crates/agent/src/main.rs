//! The agent: PID 1 of every sandbox, and the host's only way into it.
//!
//! Owns: starting and steering processes, terminals, files, reaping, the orderly end. Refuses: to
//! trust the root it runs in (it needs no file of it), to look anything up on the network, and to
//! depend on the host's daemon: connections come and go, what they started stays.
//!
//! `agent --listen-fd N` serves the listening Unix socket that it inherits as descriptor N.
//! `agent --listen PATH` makes a socket, for tests.

mod agent;
mod connection;
mod disks;
mod exec;
mod files;
mod listen;
mod outbox;
mod processes;
mod reaper;
mod shutdown;
mod stream;
mod sys;
mod users;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Threads for file operations; more than the disk can use at once are of no use.
const FILE_THREADS: usize = 4;
/// They stay, all but for ever: in a guest that is out of processes a new one could not be had.
const FILE_THREAD_IDLE: Duration = Duration::from_hours(10 * 365 * 24);
const USAGE: &str = "usage: agent --listen-fd NUMBER | agent --listen PATH";

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// Tells whoever started the agent. Nobody may be there any more, and PID 1 must not die of that.
fn complain(message: &str) {
    let _nobody_listens = writeln!(std::io::stderr(), "agent: {message}");
}

fn start() -> Result<(), String> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let source = listen::Source::parse(&arguments).ok_or(USAGE)?;
    sys::tune_memory();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS)
        .thread_keep_alive(FILE_THREAD_IDLE)
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(|error| format!("could not start: {error}"))?;
    LocalSet::new().block_on(&runtime, agent::run(source))
}
