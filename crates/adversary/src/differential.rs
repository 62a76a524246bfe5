//! The layer reader beside GNU tar and Python's tarfile: the same archive, the same tree.
//!
//! A seeded generator makes archives, legal ones and slightly broken ones. GNU tar extracts them; Python
//! reads them and applies the rules of `docs/formats/layer.md` by code of its own. Every difference is
//! either in the table of this module, with its reason, or a fault.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

mod generate;
mod gnu;
mod habits;
mod listing;
mod ours;
pub mod producers;
mod python;
mod table;

use crate::properties::Target;
use crate::random::Random;
use habits::{Shown, excuse, gnu_fails};
use listing::{Exactness, Listing, difference};
use python::{Answer, Python};
use table::{STRICTER, Tool};

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Of the generator.
    pub seed: u64,
    /// Archives.
    pub count: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// The tools and their versions.
    pub tools: String,
    /// Archives that all three read alike.
    pub alike: u64,
    /// Archives that all three refuse.
    pub refused: u64,
    /// Known differences: how often each.
    pub known: BTreeMap<String, u64>,
    /// Differences that nobody knew of.
    pub unknown: Vec<String>,
}

impl Summary {
    /// As a table.
    pub fn report(&self) -> String {
        let mut text = format!(
            "{}\n| outcome | archives |\n| --- | ---: |\n| read by all, the same tree | {} |\n\
             | refused by all | {} |\n",
            self.tools, self.alike, self.refused
        );
        for (what, count) in &self.known {
            let _ = writeln!(text, "| {what} | {count} |");
        }
        let _ = writeln!(text, "| not explained | {} |", self.unknown.len());
        text
    }
}

/// Runs the comparison. `scratch` holds what is made on the way; archives that nobody can explain stay there.
pub fn compare(options: Options, scratch: &Path) -> Summary {
    let version = Command::new("tar").arg("--version").output().expect("GNU tar is installed");
    let version = String::from_utf8_lossy(&version.stdout);
    let mut python = Python::start();
    let mut summary = Summary {
        tools: format!(
            "{}, Python {}",
            version.lines().next().unwrap_or_default(),
            python.version()
        ),
        ..Summary::default()
    };
    for number in 0..options.count {
        // A seed for each archive, so that one can be made again without all before it.
        let mut random = Random::new(options.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let legal = generate::legal(&mut random);
        let broken = number % 4 != 0;
        let tar = if broken { generate::mutate(legal, &mut random) } else { legal };
        let path = scratch.join("archive.tar");
        fs::write(&path, &tar).expect("the directory of the test can be written");
        Target::Tar.check(&tar);
        let mut case = Case { summary: &mut summary, tar: &tar, number, scratch };
        let ours = ours::read(&tar);
        if !broken && let Err((_, error)) = &ours {
            case.unknown(&format!("a legal archive is refused: {error}"));
            continue;
        }
        case.compare(ours, gnu::read(&path, scratch), python.read(&path));
    }
    summary
}

struct Case<'c> {
    summary: &'c mut Summary,
    tar: &'c [u8],
    number: u64,
    scratch: &'c Path,
}

impl Case<'_> {
    fn compare(
        &mut self,
        ours: Result<Listing, (&'static str, String)>,
        gnu: Result<Listing, String>,
        python: Result<Answer, String>,
    ) {
        let ours = match ours {
            Ok(ours) => ours,
            Err((key, error)) => {
                return self.compare_refusal(key, &error, gnu.is_ok(), python.is_ok());
            }
        };
        let mut alike = true;
        match &python {
            Ok(answer) => alike &= self.same_tree(Tool::Python, &ours, &answer.listing, answer),
            Err(error) => {
                alike = false;
                match table::python_refuses(error) {
                    Some(why) => self.known(&format!("Python refuses: {why}")),
                    None => self.unknown(&format!("Python refuses what we read: {error}")),
                }
            }
        }
        match (&gnu, &python) {
            (Ok(listing), Ok(answer)) => {
                alike &= self.same_tree(Tool::Gnu, &ours, listing, answer);
            }
            // Python says which directories no entry describes.
            (Ok(_), Err(_)) => {}
            (Err(error), _) => {
                alike = false;
                self.gnu_refuses(error, python.as_ref().ok());
            }
        }
        if alike {
            self.summary.alike += 1;
        }
    }

    /// Compares the trees; `answer` says what the archive has that tools are known to read otherwise.
    fn same_tree(&mut self, tool: Tool, ours: &Listing, theirs: &Listing, answer: &Answer) -> bool {
        let exact = Exactness { symlink_times: true };
        let ours = described(ours, &answer.listing);
        let Some(mut what) = difference(&ours, theirs, exact) else { return true };
        if let Some((excused, why)) = excuse(&ours, theirs, tool, &answer.habits) {
            match difference(&excused, theirs, exact) {
                None => {
                    self.known(&format!("{tool:?} differs: {why}"));
                    return false;
                }
                Some(more) => what = more,
            }
        }
        let what = match tool {
            Tool::Gnu => format!("GNU tar makes another tree: {what}"),
            Tool::Python => format!("Python sees another tree: {what}"),
        };
        self.differs(tool, &answer.features, &what);
        false
    }

    fn gnu_refuses(&mut self, error: &str, answer: Option<&Answer>) {
        let (features, habits): (&[String], &[Shown]) = match answer {
            Some(answer) => (&answer.features, &answer.habits),
            None => (&[], &[]),
        };
        let through = features.iter().any(|feature| feature.starts_with("below a symlink"));
        let why = table::gnu_refuses(error).filter(|_| !through);
        match why.or_else(|| gnu_fails(error, habits)) {
            Some(why) => self.known(&format!("GNU tar refuses: {why}")),
            None => {
                self.differs(
                    Tool::Gnu,
                    features,
                    &format!("GNU tar refuses what we read: {error}"),
                );
            }
        }
    }

    fn compare_refusal(&mut self, key: &'static str, error: &str, gnu: bool, python: bool) {
        if !gnu && !python {
            self.summary.refused += 1;
        }
        for (reads, tool) in [(gnu, Tool::Gnu), (python, Tool::Python)] {
            if !reads {
                continue;
            }
            match STRICTER.iter().find(|known| known.refusal == key && known.tool == tool) {
                Some(known) => {
                    self.known(&format!("refused here, read by {tool:?}: {key} ({})", known.why));
                }
                None => self.unknown(&format!("{tool:?} reads what we refuse as `{key}`: {error}")),
            }
        }
    }

    /// A tool differs, perhaps for a reason that the archive shows.
    fn differs(&mut self, tool: Tool, features: &[String], what: &str) {
        let reason = |feature: &String| match tool {
            Tool::Gnu => table::gnu_differs(feature),
            Tool::Python => table::python_differs(feature),
        };
        match features.iter().find_map(|feature| Some((feature, reason(feature)?))) {
            Some((feature, why)) => self.known(&format!("{tool:?} differs: {feature} ({why})")),
            None => self.unknown(what),
        }
    }

    fn known(&mut self, what: &str) {
        *self.summary.known.entry(what.to_owned()).or_default() += 1;
    }

    fn unknown(&mut self, what: &str) {
        let kept: PathBuf = self.scratch.join(format!("unknown-{}.tar", self.number));
        fs::write(&kept, self.tar).expect("the directory of the test can be written");
        self.summary.unknown.push(format!("{}: {what}", kept.display()));
    }
}

/// `ours` without attributes of directories that no entry describes.
fn described(ours: &Listing, theirs: &Listing) -> Listing {
    let mut ours = ours.clone();
    for (path, node) in &mut ours {
        if node.kind == 'd' && theirs.get(path).is_some_and(|other| other.attributes.is_none()) {
            node.attributes = None;
        }
    }
    ours
}
