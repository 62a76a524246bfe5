//! What the guest has said, held against what it had to say.

use std::collections::BTreeMap;
use std::fmt;

/// What a result must come of.
pub(super) struct Expected {
    /// Names of checks.
    pub(super) checks: Vec<String>,
    /// Names of tests.
    pub(super) tests: Vec<String>,
}

/// How a guest's checks and tests ended.
pub(super) struct Report {
    checks: usize,
    tests: usize,
    failed: Vec<String>,
    missing: Vec<String>,
    ended: bool,
    layers: String,
}

impl Report {
    /// Reads the guest's lines.
    pub(super) fn of(lines: &[String], expected: &Expected) -> Self {
        let mut results = BTreeMap::new();
        let mut layers = String::from("unknown");
        for line in lines {
            if let Some((name, good)) = result(line) {
                // One that has failed stays failed, whatever is said of it later.
                *results.entry(name).or_insert(true) &= good;
            }
            if let Some(found) = line.strip_prefix("note doctor: ")
                && let Some((_, how)) = found.split_once(" layers: ")
            {
                how.split([',', ';']).next().unwrap_or(how).clone_into(&mut layers);
            }
        }
        let count = |names: &[String]| {
            names.iter().filter(|name| results.get(name.as_str()) == Some(&true)).count()
        };
        let missing = expected.checks.iter().chain(&expected.tests);
        let missing = missing.filter(|name| !results.contains_key(name.as_str()));
        Self {
            checks: count(&expected.checks),
            tests: count(&expected.tests),
            failed: results
                .iter()
                .filter(|(_, good)| !**good)
                .map(|(n, _)| (*n).to_owned())
                .collect(),
            missing: missing.cloned().collect(),
            ended: lines.iter().any(|line| line == "END"),
            layers,
        }
    }

    /// Whether everything came, and was good.
    pub(super) fn is_good(&self) -> bool {
        self.ended && self.failed.is_empty() && self.missing.is_empty()
    }
}

/// The name that a line gives the result of, and whether it is good.
fn result(line: &str) -> Option<(&str, bool)> {
    if let Some(name) = line.strip_prefix("ok ") {
        return Some((name, true));
    }
    if let Some(rest) = line.strip_prefix("FAILED ") {
        return Some((rest.split(' ').next().unwrap_or(rest), false));
    }
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    match result {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "layers as {}; {} checks and {} tests are good",
            self.layers, self.checks, self.tests
        )?;
        for (what, names) in [("failed", &self.failed), ("no result of", &self.missing)] {
            if !names.is_empty() {
                write!(f, "; {what}: {}", names.join(", "))?;
            }
        }
        if !self.ended {
            write!(f, "; it did not come to its end")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Report {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        let expected = Expected { checks: names(["serve", "run"]), tests: names(["a::b", "a::c"]) };
        Report::of(&lines, &expected)
    }

    #[test]
    fn all_must_come_and_be_good() {
        let good = "note doctor: degraded  layers: plain directories, which take more disk\nok serve\n\
            ok run\ntest a::b ... ok\ntest a::c ... ok\nEND";
        let found = report(good);
        assert!(found.is_good(), "{found}");
        assert_eq!(found.to_string(), "layers as plain directories; 2 checks and 2 tests are good");
        for (from, to, part) in [
            ("ok run\n", "", "no result of: run"),
            ("ok run\n", "FAILED run (1): kiln run\n", "failed: run"),
            ("a::c ... ok", "a::c ... FAILED", "failed: a::c"),
            ("a::c ... ok", "a::c ... ignored", "no result of: a::c"),
            ("\nEND", "", "did not come to its end"),
            ("ok run\n", "FAILED run (1): kiln run\nok run\n", "failed: run"),
        ] {
            let found = report(&good.replace(from, to));
            assert!(!found.is_good() && found.to_string().contains(part), "{found}");
        }
    }
}
