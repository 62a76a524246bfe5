//! `kiln-adversary seeds DIRECTORY` writes the seed corpus of every fuzz target;
//! `kiln-adversary differential [--seed N] [--count N]` compares the layer reader with other tools.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program talks to the person who runs it")]

use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use kiln_adversary::differential::{Options, compare};
use kiln_adversary::{Target, seeds};

const USAGE: &str = "usage: kiln-adversary seeds DIRECTORY
       kiln-adversary differential [--seed N] [--count N]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["seeds", directory] => match write_seeds(Path::new(directory)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("cannot write the seeds below {directory}: {error}");
                ExitCode::FAILURE
            }
        },
        ["differential", ref rest @ ..] => match options(rest) {
            Some(options) => differential(options),
            None => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::FAILURE
}

fn options(arguments: &[&str]) -> Option<Options> {
    let mut options = Options { seed: 1, count: 20_000 };
    for pair in arguments.chunks(2) {
        match pair {
            ["--seed", value] => options.seed = value.parse().ok()?,
            ["--count", value] => options.count = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(options)
}

fn differential(options: Options) -> ExitCode {
    let scratch = tempfile::Builder::new().prefix("kiln-differential-").tempdir();
    let scratch = scratch.expect("there is a place for temporary files");
    let summary = compare(options, scratch.path());
    println!("seed {}, {} archives; {}", options.seed, options.count, summary.report());
    if summary.unknown.is_empty() {
        return ExitCode::SUCCESS;
    }
    for what in summary.unknown.iter().take(50) {
        eprintln!("{what}");
    }
    eprintln!("the archives are in {}", scratch.keep().display());
    ExitCode::FAILURE
}

fn write_seeds(directory: &Path) -> io::Result<()> {
    for target in Target::ALL {
        let directory = directory.join(target.name());
        fs::create_dir_all(&directory)?;
        for (name, bytes) in seeds(target) {
            fs::write(directory.join(format!("seed-{name}")), bytes)?;
        }
    }
    Ok(())
}
