//! Differences in attributes of single paths. All else of such an archive is compared.

use super::listing::{Listing, Node};
use super::table::Tool;

/// A path and the habit that it shows, as the worker finds them.
pub(super) type Shown = (Vec<u8>, String);

/// What a tool does to attributes.
struct Habit {
    name: &'static str,
    tool: Tool,
    /// Whether only the time may be another one.
    time_only: bool,
    why: &'static str,
}

const BY_NAME: &str = "a directory whose name leads elsewhere at the end";

const HABITS: &[Habit] = &[
    Habit {
        name: "a symlink that leads out put into a directory by another name",
        tool: Tool::Gnu,
        time_only: true,
        why: "it makes such symlinks at the end, and sets times after them only by the name before the last slash",
    },
    Habit {
        name: BY_NAME,
        tool: Tool::Gnu,
        time_only: false,
        why: "it sets attributes of directories at the end, by name, when a symlink on the way has been replaced",
    },
    Habit {
        name: "records behind the end of an extended header",
        tool: Tool::Python,
        time_only: false,
        why: "it reads records up to the end of the block",
    },
];

/// `ours` with what the habits of `tool` may make of it, and what to call them; `None` if there are none.
pub(super) fn excuse(
    ours: &Listing,
    theirs: &Listing,
    tool: Tool,
    shown: &[Shown],
) -> Option<(Listing, String)> {
    let mut excused = ours.clone();
    let mut reason = None;
    for habit in HABITS.iter().filter(|habit| habit.tool == tool) {
        for (path, _) in shown.iter().filter(|(_, name)| name == habit.name) {
            if let (Some(node), Some(other)) = (excused.get_mut(path), theirs.get(path))
                && take(node, other, habit.time_only)
            {
                reason.get_or_insert_with(|| format!("{} ({})", habit.name, habit.why));
            }
        }
    }
    Some((excused, reason?))
}

/// Gives `ours` the attributes of `theirs`; false if that changes nothing.
fn take(ours: &mut Node, theirs: &Node, time_only: bool) -> bool {
    let (Some(a), Some(b)) = (&mut ours.attributes, &theirs.attributes) else { return false };
    let mut new = b.clone();
    if time_only {
        new = a.clone();
        new.mtime = b.mtime;
    }
    let changes = *a != new;
    *a = new;
    changes
}

/// Why GNU tar fails at the end of an archive that it has extracted, if all that it says comes of that.
pub(super) fn gnu_fails(error: &str, shown: &[Shown]) -> Option<&'static str> {
    let about_names = error.lines().filter(|line| !line.is_empty()).all(|line| {
        line == "tar: Exiting with failure status due to previous errors"
            || line == "tar: Extracting contiguous files as regular files"
            || line.ends_with(": Directory renamed before its status could be extracted")
            || ["stat: ", "utime: ", "change ownership to ", "change mode to "]
                .iter()
                .any(|step| line.contains(&format!(": Cannot {step}")))
                && line.ends_with(": No such file or directory")
    });
    let habit = HABITS.iter().find(|habit| habit.name == BY_NAME)?;
    (about_names && shown.iter().any(|(_, name)| name == BY_NAME)).then_some(habit.why)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::python::Python;
    use super::super::{Case, Summary, gnu, ours};
    use crate::archive::{Archive, Header, pax_records};

    fn dir(name: &str, mtime: u32) -> Header {
        Header::new(b'5', name).mode(0o755).owner(7, 8).mtime(mtime)
    }

    fn outcome(tar: &[u8]) -> (Vec<String>, Vec<String>) {
        let scratch = tempfile::Builder::new().prefix("kiln-habits-").tempdir().unwrap();
        let path = scratch.path().join("archive.tar");
        fs::write(&path, tar).unwrap();
        let mut summary = Summary::default();
        let mut case = Case { summary: &mut summary, tar, number: 0, scratch: scratch.path() };
        let read = gnu::read(&path, scratch.path());
        case.compare(ours::read(tar), read, Python::start().read(&path));
        (summary.known.into_keys().collect(), summary.unknown)
    }

    #[test]
    fn each_habit_is_seen_and_explained() {
        let delayed = Archive::new().entry(dir("d/", 1000), b"").symlink("way", "d");
        let delayed = delayed.symlink("way/out", "/d").end();
        let replaced = |first: &str, last: &str, root: bool| {
            let archive = Archive::new()
                .entry(dir("a/", 1), b"")
                .entry(dir("b/", 2), b"")
                .entry(dir("b/v/", 3).owner(9, 9), b"")
                .symlink("way", first)
                .entry(dir("way/v/", 1000), b"");
            // What comes before the root gets its attributes in another way.
            let archive = if root { archive.entry(dir("./", 5), b"") } else { archive };
            archive.symlink("way", last).end()
        };
        let records = pax_records(&[("uid", "3000000"), ("gid", "77")]);
        let mut block = records.clone();
        block.resize(512, 0);
        let padding = Archive::new().raw(&Header::new(b'x', "x").size(15).sealed()).raw(&block);
        let padding = padding.file("f", "data").end();
        let lost = "GNU tar refuses: it sets attributes of directories";
        let cases: [(&str, Vec<u8>, &str); 7] = [
            ("delayed", delayed, "Gnu differs: a symlink that leads out put into"),
            ("replaced", replaced("a", "b", false), "Gnu differs: a directory whose name leads"),
            ("lost", replaced("b", "a", false), lost),
            ("renamed, then the root", replaced("a", "b", true), lost),
            ("lost, then the root", replaced("b", "a", true), lost),
            ("padding", padding, "Python differs: records behind the end"),
            (
                "global",
                Archive::new().file("f", "").global(&[("comment", "x")]).unfinished(),
                "Python refuses: a global header that no entry follows",
            ),
        ];
        for (case, tar, expected) in cases {
            let (known, unknown) = outcome(&tar);
            assert_eq!(unknown, Vec::<String>::new(), "{case}");
            let [known] = &known[..] else { panic!("{case}: {known:?}") };
            assert!(known.starts_with(expected), "{case}: {known}");
        }
    }

    #[test]
    fn what_is_not_of_the_habit_stays_a_difference() {
        let archive = |mode, mtime| {
            let archive = Archive::new().entry(dir("d/", mtime).mode(mode), b"");
            archive.symlink("way", "d").symlink("way/out", "/d").end()
        };
        let other = |tar: &[u8]| {
            let scratch = tempfile::Builder::new().prefix("kiln-habits-").tempdir().unwrap();
            let path = scratch.path().join("archive.tar");
            fs::write(&path, tar).unwrap();
            Python::start().read(&path).unwrap()
        };
        let ours = other(&archive(0o755, 1));
        for (mode, explained) in [(0o755, true), (0o700, false)] {
            let theirs = other(&archive(mode, 2)).listing;
            let (excused, _) =
                super::excuse(&ours.listing, &theirs, super::Tool::Gnu, &ours.habits).unwrap();
            let exact = super::super::Exactness { symlink_times: true };
            let difference = super::super::difference(&excused, &theirs, exact);
            assert_eq!(difference.is_none(), explained, "{mode:o}: {difference:?}");
        }
    }
}
