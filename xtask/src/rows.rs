//! Requirement rows and the tests that prove them: a test named `s4_3_…` proves row S4.3.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// The rows that must have at least one test.
const ROWS: [&str; 13] = [
    "S0.2", "S0.3", "S0.4", "S0.5", "S0.9", "S1.3", "S1.4", "S1.7", "S2.1", "S4.3", "S4.6", "S4.7",
    "S4.8",
];

/// What nextest writes; see `.config/nextest.toml`.
const JUNIT: &str = "target/nextest/default/junit.xml";

/// Runs only the tests that are named after rows.
pub(crate) fn run() -> Result<()> {
    let filter = r"test(/(^|::)(s[0-9]+_[0-9]+|z[0-9]+)_/)";
    let tests = process::run(process::command(
        "cargo",
        &["nextest", "run", "--workspace", "--locked", "-E", filter],
    ));
    let report = report(tests.is_ok());
    tests.and(report)
}

/// Prints row → tests → result of the last run, and the skips that tests announced.
pub(crate) fn report(passed: bool) -> Result<()> {
    let path = crate::root().join(JUNIT);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("no test report at {}", path.display()))?;
    let cases = cases(&text);
    let mut rows: BTreeMap<&str, Vec<&Case>> = ROWS.iter().map(|row| (*row, Vec::new())).collect();
    for case in &cases {
        if let Some(tests) = case.row().and_then(|row| rows.get_mut(row.as_str())) {
            tests.push(case);
        }
    }
    println!("row    result  tests");
    let mut missing = Vec::new();
    for (row, tests) in &rows {
        let result = match tests.as_slice() {
            [] => "NONE",
            tests if tests.iter().all(|case| case.passed && case.skips.is_empty()) => "pass",
            tests if tests.iter().all(|case| case.passed) => "skip",
            _ => "FAIL",
        };
        if result != "pass" {
            missing.push(*row);
        }
        let names: Vec<&str> = tests.iter().map(|case| case.short()).collect();
        println!("{row:<6} {result:<7} {}", names.join(", "));
    }
    let skips: Vec<_> =
        cases.iter().flat_map(|case| case.skips.iter().map(move |s| (case, s))).collect();
    println!("{} tests in the report, {} announced a skip", cases.len(), skips.len());
    for (case, reason) in skips {
        println!("  {}: {reason}", case.name);
    }
    if passed && !missing.is_empty() {
        bail!("rows without a passing test: {}", missing.join(", "));
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Case {
    name: String,
    passed: bool,
    skips: Vec<String>,
}

impl Case {
    fn short(&self) -> &str {
        self.name.rsplit("::").next().unwrap_or(&self.name)
    }

    /// `s4_3_builds` → `S4.3`, `z1_prefix` → `Z1`.
    fn row(&self) -> Option<String> {
        let mut parts = self.short().split('_');
        let first = parts.next()?;
        let digits =
            first.get(1..).filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))?;
        match first.as_bytes().first()? {
            b'z' => Some(format!("Z{digits}")),
            b's' => {
                let minor = parts.next().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
                Some(format!("S{digits}.{minor}"))
            }
            _ => None,
        }
    }
}

/// The test cases of a JUnit report, as far as nextest writes them.
fn cases(text: &str) -> Vec<Case> {
    text.split("<testcase ")
        .skip(1)
        .map(|piece| {
            let body = piece.split("</testcase>").next().unwrap_or(piece);
            let name = attribute(body, "name").unwrap_or_default();
            let passed = !body.contains("<failure") && !body.contains("<error");
            let skips = body
                .lines()
                .filter_map(|line| line.split_once("SKIP ").map(|(_, reason)| unescape(reason)))
                .collect();
            Case { name, passed, skips }
        })
        .collect()
}

fn attribute(element: &str, name: &str) -> Option<String> {
    let start = element.find(&format!("{name}=\""))? + name.len() + 2;
    let end = element[start..].find('"')?;
    Some(unescape(&element[start..start + end]))
}

fn unescape(text: &str) -> String {
    let text = text.split("</system-").next().unwrap_or(text);
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_report() {
        let text = r#"<testsuite name="a"><testcase name="build::s4_3_builds" classname="x" time="1">
            <system-out>SKIP no overlayfs here</system-out></testcase>
            <testcase name="z1_prefix" time="1"><failure message="no"/></testcase>
            <testcase name="plain"/></testsuite>"#;
        let cases = cases(text);
        let rows: Vec<_> = cases.iter().map(|case| (case.row(), case.passed)).collect();
        assert_eq!(
            rows,
            [(Some("S4.3".to_owned()), true), (Some("Z1".to_owned()), false), (None, true),]
        );
        assert_eq!(cases[0].skips, ["no overlayfs here"]);
    }
}
