//! Kiln and its peers, measured side by side in one run.
//!
//! Owns: the rig (one base image, a loopback registry, private configuration for every peer), the rows of
//! the table, the order in which contestants take turns, the raw samples and the table made of them.
//! Refuses: to judge. It fails when an operation fails or answers wrongly, never because it was slow.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that talks to the person who runs it")]

mod earlier;
mod http;
mod interrupt;
mod kiln;
mod machine;
mod peers;
mod place;
mod processes;
mod program;
mod record;
mod report;
mod rig;
mod rows;
mod spawner;
mod stats;
mod turns;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Measures Kiln and its peers side by side.
#[derive(Debug, Parser)]
struct Args {
    /// The `kiln` program to measure
    #[arg(long, default_value = "target/release/kiln")]
    kiln: PathBuf,
    /// Where the base image is kept between runs
    #[arg(long, default_value = "target/bench")]
    cache: PathBuf,
    /// Where the samples go
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
    /// The document that holds the table
    #[arg(long, default_value = "docs/benchmarks.md")]
    document: PathBuf,
    /// Name of the file of samples
    #[arg(long, default_value = "latest")]
    name: String,
    /// How often the quickest operations are repeated; slower ones are repeated less often
    #[arg(long, default_value_t = 200)]
    runs: u32,
    /// Just enough repetitions to prove that every row works
    #[arg(long)]
    quick: bool,
    /// Only the rows whose name contains this (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Decides the order of the turns
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// List the rows
    #[arg(long)]
    list: bool,
    /// Write the table of earlier samples into the document, and measure nothing
    #[arg(long)]
    report: bool,
    /// Run commands for another process (internal)
    #[arg(long, hide = true)]
    spawner: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            let signal = interrupt::signalled().and_then(|number| u8::try_from(number).ok());
            signal.map_or(ExitCode::FAILURE, |number| ExitCode::from(128 + number))
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if args.spawner {
        return spawner::serve();
    }
    if args.list {
        for row in rows::ROWS {
            println!("{:<16} {}", row.name, row.title);
        }
        return Ok(());
    }
    let file = args.results.join(format!("{}.jsonl", args.name));
    if args.report {
        return report::write(&file, &args.document);
    }
    rows::run(args, &file)?;
    report::print(&file)
}
