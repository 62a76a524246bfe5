//! What there is to say of each task: `cargo xtask help` says all, `cargo xtask TASK --help` its part.

/// All of it. A task begins with two spaces; more of them go on with it.
pub(crate) const ALL: &str = "\
cargo xtask <task>; `cargo xtask <task> --help` shows the options of one

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
  kernels [VERSION…]
                   checks and end-to-end tests on stock kernels of Debian (6.1 and 6.12), each in a
                   machine that QEMU emulates; takes a quarter of an hour a kernel
  fsck-matrix      a flipped byte in every block of everything that is stored, and every cut: found
  gc-model         garbage collection beside 100 000 random operations (docs/integrity.md)
  torture [--quick] [--seed N] [--points N] [--from N] [--only AREA] [--verbose]
                   crashes and faults at N seeded points (2000; 200 with --quick), and what has to
                   hold after each; areas are kill, tool, point-kill, point-error, files, registry
                   and disk; --from begins with the hundred that point N is in; --verbose prints a line
                   for each point; --directory DIR keeps everything there; docs/torture.md
  rows             runs the tests that are named after requirement rows: row, tests, result
";

/// The part of one task, if it is asked for by `arguments`: a task, and `--help` or `-h` behind it.
pub(crate) fn asked(arguments: &[&str]) -> Option<String> {
    let (task, options) = arguments.split_first()?;
    let wanted = options.iter().any(|option| ["--help", "-h"].contains(option));
    wanted.then(|| of(task)).flatten()
}

fn of(task: &str) -> Option<String> {
    let is_first = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let mut lines = ALL
        .lines()
        .skip_while(|line| !is_first(line) || line.split_whitespace().next() != Some(task));
    let first = lines.next()?;
    let more = lines.take_while(|line| !is_first(line)).map(str::trim_start);
    let lines: Vec<&str> = std::iter::once(first.trim_start()).chain(more).collect();
    Some(format!("cargo xtask {}\n", lines.join("\n  ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_its_part() {
        let part = asked(&["torture", "--quick", "-h"]).unwrap();
        assert!(part.starts_with("cargo xtask torture [--quick] [--seed N]"), "{part}");
        assert!(part.contains("--verbose prints") && !part.contains("rows"), "{part}");
        for task in ["demo", "fuzz", "bench", "load", "schemathesis", "gc-model", "rows"] {
            let part = asked(&[task, "--help"]).unwrap();
            assert!(part.starts_with(&format!("cargo xtask {task}")), "{part}");
        }
        assert_eq!(asked(&["torture", "--quick"]), None);
        assert_eq!(asked(&["no-such-task", "--help"]), None);
        assert_eq!(asked(&["--help"]), None);
    }
}
