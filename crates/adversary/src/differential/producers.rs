//! Archives as real tools write them: the tree that was packed is the tree that is read.
//!
//! A seeded generator makes trees on disk, GNU tar and Python's tarfile write their archives in each of their
//! formats, and what Kiln reads of these is compared with what `lstat` says of the tree itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::XattrFlags;

use super::listing::{Exactness, Listing, difference};
use super::{Options, gnu, ours};
use crate::random::Random;
use grow::Grown;

mod grow;

/// What one format of one tool can store.
#[derive(Clone, Copy, Debug)]
struct Abilities {
    /// Bytes of a path, `./` and a slash at its end included.
    path: usize,
    /// Bytes of one component that is long.
    component: usize,
    /// Bytes of a target.
    link: usize,
    /// Devices and pipes.
    nodes: bool,
    /// Owners from 2^21.
    large_ids: bool,
    /// Times before 1970.
    early: bool,
    /// Nanoseconds.
    fractions: bool,
    xattrs: bool,
}

const SEVENTH: Abilities = Abilities {
    path: 99,
    component: 40,
    link: 99,
    nodes: false,
    large_ids: false,
    early: false,
    fractions: false,
    xattrs: false,
};
const USTAR: Abilities = Abilities { path: 140, nodes: true, ..SEVENTH };
const GNU: Abilities =
    Abilities { path: 2000, component: 240, link: 600, large_ids: true, early: true, ..USTAR };
const POSIX: Abilities = Abilities { fractions: true, ..GNU };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Tar,
    Tarfile,
}

/// Every format that the tools write.
const FORMATS: [(Tool, &str, Abilities); 9] = [
    (Tool::Tar, "v7", SEVENTH),
    (Tool::Tar, "oldgnu", GNU),
    (Tool::Tar, "gnu", GNU),
    (Tool::Tar, "ustar", USTAR),
    (Tool::Tar, "posix", POSIX),
    (Tool::Tar, "posix", Abilities { xattrs: true, ..POSIX }),
    (Tool::Tarfile, "USTAR", USTAR),
    (Tool::Tarfile, "GNU", GNU),
    (Tool::Tarfile, "PAX", POSIX),
];

/// What came of it.
#[derive(Debug, Default)]
pub struct Produced {
    /// Archives by tool and format, all read as the tree that was packed but for `faults`.
    pub archives: BTreeMap<String, u64>,
    /// Names in all trees.
    pub names: usize,
    /// Whether the file system of the trees has xattrs of users; if not, none are tried.
    pub xattrs: bool,
    /// Archives that are read as something else, or not at all.
    pub faults: Vec<String>,
}

/// Makes `options.count` trees for every format. `scratch` holds what is made on the way; archives of faults
/// stay there. Needs root.
///
/// # Panics
///
/// If a tool is not there, or a tree cannot be made.
pub fn produce(options: Options, scratch: &Path) -> Produced {
    let mut produced = Produced { xattrs: has_xattrs(scratch), ..Produced::default() };
    for number in 0..options.count {
        for (place, (tool, format, can)) in FORMATS.into_iter().enumerate() {
            let can = Abilities { xattrs: can.xattrs && produced.xattrs, ..can };
            let seed = (number << 8) + place as u64;
            let mut random = Random::new(options.seed ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let name = format!("{tool:?} {format}{}", if can.xattrs { " with xattrs" } else { "" });
            if let Err(fault) = one(tool, format, can, &mut random, scratch, &mut produced.names) {
                let kept = scratch.join(format!("fault-{number}-{place}.tar"));
                let _ = fs::rename(scratch.join("produced.tar"), &kept);
                produced.faults.push(format!("{name}, {}: {fault}", kept.display()));
            }
            *produced.archives.entry(name).or_default() += 1;
        }
    }
    produced
}

fn has_xattrs(scratch: &Path) -> bool {
    let probe = scratch.join("probe");
    fs::write(&probe, "").expect("the directory of the test can be written");
    rustix::fs::setxattr(&probe, "user.a", b"1", XattrFlags::empty()).is_ok()
}

fn one(
    tool: Tool,
    format: &str,
    can: Abilities,
    random: &mut Random,
    scratch: &Path,
    names: &mut usize,
) -> Result<(), String> {
    let (tree, archive) = (scratch.join("tree"), scratch.join("produced.tar"));
    fs::create_dir(&tree).expect("the directory of the test can be written");
    Grown::fill(&tree, can, random);
    // The whole tree by its root, or what is in it by name: then nothing describes the root.
    let with_root = random.one_in(2);
    let result = write(tool, format, can, &tree, &archive, with_root);
    let mut expected = gnu::list(&tree);
    fs::remove_dir_all(&tree).expect("what was made can be removed");
    result?;
    *names += expected.len();
    round(&mut expected, can, with_root);
    let tar = fs::read(&archive).expect("it was just written");
    let ours = ours::read(&tar).map_err(|(_, error)| format!("refused: {error}"))?;
    match difference(&ours, &expected, Exactness { symlink_times: true }) {
        Some(what) => Err(format!("another tree: {what}")),
        None => Ok(()),
    }
}

fn write(
    tool: Tool,
    format: &str,
    can: Abilities,
    tree: &Path,
    archive: &Path,
    with_root: bool,
) -> Result<(), String> {
    let names: Vec<OsString> = if with_root {
        vec![".".into()]
    } else {
        let inside = fs::read_dir(tree).expect("it was just made");
        let inside = inside.map(|entry| entry.expect("it can be read").file_name());
        // GNU tar takes `-x` for an option even where a name has to be.
        inside.map(|name| [b"./", name.as_bytes()].concat()).map(into_name).collect()
    };
    let mut command = match tool {
        Tool::Tar => {
            let mut command = Command::new("tar");
            command
                .args(["--create", "--no-unquote"])
                .arg(format!("--format={format}"))
                .arg("--file")
                .arg(archive);
            if can.xattrs {
                command.args(["--xattrs", "--xattrs-include=user.*"]);
            }
            command.arg("--directory").arg(tree);
            command
        }
        Tool::Tarfile => {
            let mut command = Command::new("python3");
            command.args(["-c", include_str!("producers/tarfile.py"), format]);
            command.arg(tree).arg(archive);
            command
        }
    };
    let output = command.args(names).env("LC_ALL", "C").stdin(Stdio::null()).output();
    let output = output.expect("the tool is installed");
    if output.status.success() {
        return Ok(());
    }
    Err(format!("not written: {}", String::from_utf8_lossy(&output.stderr)))
}

fn into_name(bytes: Vec<u8>) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

/// What the format keeps of a tree.
fn round(expected: &mut Listing, can: Abilities, with_root: bool) {
    for (path, node) in expected {
        if path.is_empty() && !with_root {
            node.attributes = None;
        }
        if let Some(attributes) = &mut node.attributes {
            if !can.fractions {
                attributes.mtime = attributes.mtime.floor();
            }
            if !can.xattrs {
                attributes.xattrs.clear();
            }
        }
    }
}
