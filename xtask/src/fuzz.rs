//! `cargo xtask fuzz`: runs the targets of `fuzz/` one after the other and says what they found.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process;

const TARGETS: [&str; 6] = ["tar", "index", "manifest", "template", "protocol", "definition"];

/// Bytes of one input: a few headers of a tar, or a document of some pages.
const LONGEST: &str = "16384";

/// Seconds for each target unless `--seconds` says otherwise.
const SECONDS: &str = "60";

/// Where the table of `docs/fuzzing.md` is.
const BEGIN: &str = "<!-- written by cargo xtask fuzz --report -->";
const END: &str = "<!-- end -->";

pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    if arguments == ["--report"] {
        return write_report();
    }
    let (seconds, named) = match arguments {
        ["--seconds", seconds, named @ ..] => (*seconds, named),
        named => (SECONDS, named),
    };
    ensure!(seconds.parse::<u32>().is_ok(), "`--seconds {seconds}` is not a number of seconds");
    for name in named {
        ensure!(TARGETS.contains(name), "`{name}` is no target; there are {}", TARGETS.join(", "));
    }
    let targets = if named.is_empty() { &TARGETS } else { named };
    prepare(targets)?;
    let mut found = Vec::new();
    for target in targets {
        if !fuzz(target, seconds)? {
            found.push(*target);
        }
    }
    println!("{}", table(targets)?);
    ensure!(
        found.is_empty(),
        "found something in {}; the logs in fuzz/target/logs say what, the inputs are in \
         fuzz/artifacts: fix it and put the input into fuzz/regressions",
        found.join(", ")
    );
    Ok(())
}

fn directory() -> PathBuf {
    crate::root().join("fuzz")
}

fn log(target: &str) -> PathBuf {
    directory().join("target/logs").join(format!("{target}.log"))
}

/// Seeds, directories, programs.
fn prepare(targets: &[&str]) -> Result<()> {
    let version = Command::new("cargo").args(["fuzz", "--version"]).output();
    if !version.is_ok_and(|output| output.status.success()) {
        bail!("cargo-fuzz is missing; `cargo install cargo-fuzz --locked` installs it");
    }
    process::run(process::command(
        "cargo",
        &["run", "--quiet", "--package", "kiln-adversary", "--", "seeds", "fuzz/corpus"],
    ))?;
    for target in targets {
        for kind in ["artifacts", "regressions"] {
            let path = directory().join(kind).join(target);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        // The sanitizers need a nightly compiler.
        let mut build = process::command("rustup", &["run", "nightly", "cargo", "fuzz", "build"]);
        build.args(["--fuzz-dir", "fuzz", target]);
        // These belong to the stable compiler that runs this task.
        build.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        process::run(build)?;
    }
    let logs = directory().join("target/logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))
}

/// Whether the target found nothing.
fn fuzz(target: &str, seconds: &str) -> Result<bool> {
    let host = process::output(process::command("rustc", &["--print", "host-tuple"]))?;
    let program = directory().join("target").join(host.trim()).join("release").join(target);
    let path = log(target);
    let log = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    eprintln!("xtask: fuzzing {target} for {seconds} s; log in {}", path.display());
    let dictionary = directory().join("dictionaries").join(target);
    let status = Command::new("nice")
        .args(["-n", "19"])
        .arg(&program)
        .arg(directory().join("corpus").join(target))
        .arg(directory().join("regressions").join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-dict={}", dictionary.display()))
        .arg(format!("-artifact_prefix={}/artifacts/{target}/", directory().display()))
        // The C libraries in it hold constants that clash by name only.
        .env("ASAN_OPTIONS", "detect_odr_violation=0")
        .args(["-timeout=25", "-rss_limit_mb=2048", "-print_final_stats=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    Ok(status.success())
}

/// What one log says at its end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    seconds: u64,
    executions: u64,
    coverage: u64,
    corpus: u64,
    new_units: u64,
    crashes: usize,
}

fn read(target: &str) -> Result<Outcome> {
    let path = log(target);
    let text = fs::read(&path).with_context(|| {
        format!("no log {}; `cargo xtask fuzz {target}` makes one", path.display())
    })?;
    let mut result = parse(&String::from_utf8_lossy(&text));
    result.crashes = files(&directory().join("artifacts").join(target));
    Ok(result)
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

/// Reads the lines that libFuzzer prints with `-print_final_stats=1`.
fn parse(log: &str) -> Outcome {
    let mut result = Outcome::default();
    let number = |text: &str| -> u64 {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    };
    let after =
        |line: &str, key: &str| line.split_once(key).map(|(_, rest)| number(rest.trim_start()));
    for line in log.lines() {
        if line.starts_with('#') {
            if let Some(coverage) = after(line, " cov:") {
                result.coverage = coverage;
            }
            if let Some(corpus) = after(line, " corp:") {
                result.corpus = corpus;
            }
        }
        if let Some(executions) = after(line, "stat::number_of_executed_units:") {
            result.executions = executions;
        }
        if let Some(new_units) = after(line, "stat::new_units_added:") {
            result.new_units = new_units;
        }
        if line.starts_with("Done ")
            && let Some(seconds) = after(line, " runs in ")
        {
            result.seconds = seconds;
        }
    }
    result
}

fn table(targets: &[&str]) -> Result<String> {
    let mut table = String::from(
        "| target | seconds | executions | a second | edges covered | corpus | new units | findings |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for target in targets {
        let Outcome { seconds, executions, coverage, corpus, new_units, crashes } = read(target)?;
        let rate = executions / seconds.max(1);
        let _ = writeln!(
            table,
            "| {target} | {seconds} | {executions} | {rate} | {coverage} | {corpus} | {new_units} | {crashes} |",
        );
    }
    Ok(table)
}

/// Puts the table of the last runs into the document.
fn write_report() -> Result<()> {
    let table = table(&TARGETS)?;
    println!("{table}");
    let path = crate::root().join("docs/fuzzing.md");
    let text = fs::read_to_string(&path).context("cannot read docs/fuzzing.md")?;
    let (head, rest) = text.split_once(BEGIN).context("docs/fuzzing.md has no place for it")?;
    let (_, tail) = rest.split_once(END).context("the table of docs/fuzzing.md has no end")?;
    fs::write(&path, format!("{head}{BEGIN}\n\n{table}\n{END}{tail}"))
        .context("cannot write docs/fuzzing.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_log() {
        let log = "#2\tINITED cov: 17 ft: 18 corp: 1/1b exec/s: 0 rss: 39Mb\n\
            #524288\tDONE   cov: 1234 ft: 4567 corp: 89/12Kb lim: 4096 exec/s: 873 rss: 512Mb\n\
            Done 524288 runs in 601 second(s)\n\
            stat::number_of_executed_units: 524288\n\
            stat::average_exec_per_sec:     872\n\
            stat::new_units_added:          88\n";
        assert_eq!(
            parse(log),
            Outcome {
                seconds: 601,
                executions: 524_288,
                coverage: 1234,
                corpus: 89,
                new_units: 88,
                crashes: 0
            }
        );
    }
}
