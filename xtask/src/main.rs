//! The project's own tasks: `cargo xtask <task>`. `cargo xtask help` lists them.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a task talks to the person who runs it")]

mod bench;
mod checks;
mod demo;
mod deps;
mod differential;
mod fuzz;
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

const HELP: &str = "\
cargo xtask <task>

  demo [--check]   from a template to a running sandbox, with a table of times; with --check
                   every result is asserted and everything is removed at the end
  test             everything that proves the project, from a clean checkout; ends with demo --check
  ci               the checks and tests of `test`, without installing packages and without the demo
  deps             the arrows between crates are those of docs/architecture.md
  openapi          writes docs/openapi.json from the routes
  fuzz [--seconds N] [TARGET…]
                   fuzzes each target for N seconds (60) and prints a table; needs cargo-fuzz and a
                   nightly compiler; --report writes the table of the last runs into docs/fuzzing.md
  differential [--seed N] [--count N]
                   the layer reader beside GNU tar and Python's tarfile, on N archives (20000)
  bench [--quick] [--only ROW] [--runs N] [--name NAME] [--report] [--list]
                   Kiln and its peers side by side (docs/benchmarks.md); samples go to
                   bench/results/NAME.jsonl, --report writes their table into the document
  schemathesis [--quick] [--seconds N] [--seed N]
                   requests made from docs/openapi.json against a real daemon, for N seconds (600)
  load [--quick] [--only burst|cycles|mixed] [--seed N]
                   200 sandboxes at once, 10 000 cycles, 60 s of 16 clients: no error, no leak
  fsck-matrix      a flipped byte in every block of everything that is stored, and every cut: found
  gc-model         garbage collection beside 100 000 random operations (docs/integrity.md)
  torture [--quick] [--seed N] [--points N] [--from N] [--only AREA] [--verbose]
                   crashes and faults at seeded points, and what has to hold after each; docs/torture.md
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
        ["rows"] => rows::run(),
        ["torture", options @ ..] => torture::run(options),
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
