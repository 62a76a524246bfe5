//! The project's own tasks: `cargo xtask <task>`. `cargo xtask help` lists them.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a task talks to the person who runs it")]

mod checks;
mod demo;
mod deps;
mod openapi;
mod packages;
mod process;
mod rows;
mod suite;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask <task>

  demo [--check]   from a template to a running sandbox, with a table of times; with --check
                   every result is asserted and everything is removed at the end
  test             everything that proves the project, from a clean checkout; ends with demo --check
  ci               the checks and tests of `test`, without installing packages and without the demo
  deps             the arrows between crates are those of docs/architecture.md
  openapi          writes docs/openapi.json from the routes
  rows             runs the tests that are named after requirement rows: row, tests, result
";

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
    match arguments {
        ["demo"] => demo::demo(false),
        ["demo", "--check"] => demo::demo(true),
        ["test"] => {
            packages::install(packages::TEST)?;
            suite::ci()?;
            demo::demo(true)
        }
        ["ci"] => suite::ci(),
        ["deps"] => deps::check(),
        ["openapi"] => openapi::write(),
        ["rows"] => rows::run(),
        ["help" | "--help" | "-h"] | [] => {
            eprint!("{HELP}");
            Ok(())
        }
        other => bail!("`{}` is not a task; see `cargo xtask help`", other.join(" ")),
    }
}

/// The workspace's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}
