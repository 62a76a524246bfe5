//! The crash and fault harness: operations, faults at seeded random points, and what has to hold after
//! each. `cargo xtask torture` builds the daemon with fail points and runs this; docs/torture.md says
//! what a run proves.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "the report goes to standard output")]

mod arguments;
mod checks;
mod collect;
mod daemon;
mod disk;
mod epoch;
mod fault;
mod fixture;
mod host;
mod operation;
mod plan;
mod point;
mod registry;
mod report;
mod rng;
mod stand_in;
mod tools;
mod world;

use std::process::ExitCode;

use anyhow::Result;

use crate::arguments::Arguments;
use crate::report::Report;

fn main() -> ExitCode {
    if let Some(name) = stand_in::name() {
        return stand_in::run(&name);
    }
    if std::env::args().skip(1).any(|word| word == "--help" || word == "-h") {
        print!("{}", arguments::HELP);
        return ExitCode::SUCCESS;
    }
    let result = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(&arguments))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let mut report = Report::new(arguments);
    let mut number = plan::epoch_start(arguments.from);
    let end = arguments.from + arguments.points;
    while number < end {
        let after = (number + plan::EPOCH).min(end);
        let done = epoch::run(arguments, number..after, &mut report).await;
        if let Err(error) = done {
            report.print();
            return Err(error);
        }
        number = after;
    }
    report.print();
    Ok(())
}
