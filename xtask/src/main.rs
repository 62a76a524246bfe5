//! The project's own tasks: `cargo xtask <task>`. `cargo xtask help` lists them.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a task talks to the person who runs it")]

mod bench;
mod checks;
mod demo;
mod deps;
mod differential;
mod fuzz;
mod help;
mod kernels;
mod load;
mod openapi;
mod packages;
mod process;
mod rows;
mod schemathesis;
mod store;
mod suite;
mod torture;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    if let Some(part) = help::asked(arguments) {
        print!("{part}");
        return Ok(());
    }
    match arguments {
        ["demo"] => demo::demo(false),
        ["demo", "--check"] => demo::demo(true),
        ["test"] => {
            packages::install(packages::TEST)?;
            packages::install_runsc();
            suite::ci()?;
            schemathesis::run(&["--quick"])?;
            demo::demo(true)
        }
        ["ci"] => suite::ci(),
        ["deps"] => deps::check(),
        ["openapi"] => openapi::write(),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["differential", rest @ ..] => differential::run(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["schemathesis", rest @ ..] => schemathesis::run(rest),
        ["load", rest @ ..] => load::run(rest),
        ["fsck-matrix"] => store::fsck_matrix(),
        ["gc-model"] => store::gc_model(),
        ["kernels", versions @ ..] => kernels::run(versions),
        ["rows"] => rows::run(),
        ["torture", options @ ..] => torture::run(options),
        ["help" | "--help" | "-h"] | [] => {
            eprint!("{}", help::ALL);
            Ok(())
        }
        other => bail!("`{}` is not a task; see `cargo xtask help`", other.join(" ")),
    }
}

/// The workspace's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}
