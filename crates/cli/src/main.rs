//! `kiln`: the one user-facing program. Commands are thin: they call the daemon and print; `kiln serve`
//! is the daemon itself.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod output;
mod progress;
mod terminal;

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    // Before anything else: this process is a launcher, in the place of one that has died.
    if std::env::args_os().skip(1).eq([commands::LAUNCHER]) {
        return ExitCode::from(kiln_runtime::launcher_main());
    }
    let cli = Cli::parse();
    if let Some(problem) = cli.conflict() {
        Cli::command().error(ErrorKind::ArgumentConflict, problem).exit();
    }
    let code_on_failure = match &cli.command {
        Command::Run(_) | Command::Exec(_) | Command::Shell(_) | Command::Fsck(_) => {
            commands::KILN_FAILED
        }
        _ => 1,
    };
    match commands::dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let text = output::describe(&error);
            // Standard error may be closed; there is nobody left to tell then.
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::from(commands::failure_code(&error, code_on_failure))
        }
    }
}
