//! What a daemon has on its host, as the kernel tells it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// Processes of one program, by their role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Processes {
    pub(crate) launchers: Vec<u32>,
    pub(crate) parked: Vec<u32>,
    /// Others of the same program that are not the daemon.
    pub(crate) others: Vec<u32>,
}

/// Everything of one daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OnHost {
    pub(crate) processes: Processes,
    pub(crate) groups: BTreeSet<String>,
    /// Groups with a process in them.
    pub(crate) populated: BTreeSet<String>,
    pub(crate) links: BTreeSet<String>,
    /// Mounts that name the data directory, in any mount namespace that can be looked into.
    pub(crate) mounts: BTreeSet<String>,
    /// Loop devices whose file lies in the data directory.
    pub(crate) loops: BTreeSet<String>,
    /// Tables of the packet filter.
    pub(crate) tables: BTreeSet<String>,
}

/// The number of the host's share that a data directory has.
pub(crate) fn block(data: &Path) -> Result<Option<u32>> {
    let data = fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    let Ok(claims) = fs::read_dir("/run/kiln") else { return Ok(None) };
    for claim in claims {
        let claim = claim?;
        let owner = fs::read(claim.path()).unwrap_or_default();
        let number = claim.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(number), true) = (number, owner == data.as_os_str().as_encoded_bytes()) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// Looks around.
pub(crate) fn look(program: &Path, daemon: u32, data: &Path, block: u32) -> Result<OnHost> {
    let (groups, populated) = groups(block)?;
    let links = fs::read_dir("/sys/class/net")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&format!("kiln{block}s")))
        .collect();
    Ok(OnHost {
        processes: processes(program, daemon)?,
        groups,
        populated,
        links,
        mounts: mounts(data)?,
        loops: loops(data)?,
        tables: tables(block)?,
    })
}

fn numbers() -> Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// Processes whose program this is, also when its file was replaced.
pub(crate) fn processes(program: &Path, daemon: u32) -> Result<Processes> {
    let mut found = Processes::default();
    let program = program.to_string_lossy();
    for pid in numbers()? {
        if pid == daemon {
            continue;
        }
        let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe")) else { continue };
        let exe = exe.to_string_lossy();
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // A process that has left the host's root shows the path as far as it can see it.
        if exe.trim_end_matches(" (deleted)") != program {
            continue;
        }
        match name.trim_end() {
            "kiln-launcher" => found.launchers.push(pid),
            "kiln-parked" => found.parked.push(pid),
            _ => found.others.push(pid),
        }
    }
    Ok(found)
}

/// Control groups below the daemon's own, in all hierarchies.
fn groups(block: u32) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut all, mut populated) = (BTreeSet::new(), BTreeSet::new());
    for parent in group_parents(block)? {
        let Ok(children) = fs::read_dir(&parent) else { continue };
        for child in children.flatten().filter(|child| child.path().is_dir()) {
            let Ok(name) = child.file_name().into_string() else { continue };
            let processes = fs::read_to_string(child.path().join("cgroup.procs"));
            if processes.is_ok_and(|text| !text.is_empty()) {
                populated.insert(name.clone());
            }
            all.insert(name);
        }
    }
    Ok((all, populated))
}

/// The daemon's own control group in each hierarchy that has it.
pub(crate) fn group_parents(block: u32) -> Result<Vec<PathBuf>> {
    let name = format!("kiln-{block}");
    let root = Path::new("/sys/fs/cgroup");
    let mut parents = vec![root.join(&name)];
    for hierarchy in fs::read_dir(root)?.flatten() {
        parents.push(hierarchy.path().join(&name));
    }
    parents.retain(|parent| parent.is_dir());
    Ok(parents)
}

fn mounts(data: &Path) -> Result<BTreeSet<String>> {
    let text = format!("{}/", data.display());
    let mut namespaces = BTreeSet::new();
    let mut found = BTreeSet::new();
    for pid in numbers()? {
        let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/mnt")) else { continue };
        if !namespaces.insert(namespace) {
            continue;
        }
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        found.extend(table.lines().filter(|line| line.contains(&text)).map(str::to_owned));
    }
    Ok(found)
}

fn loops(data: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/sys/block")?.flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.starts_with(&format!("{}/", data.display())) {
            found.insert(file.trim_end().to_owned());
        }
    }
    Ok(found)
}

fn tables(block: u32) -> Result<BTreeSet<String>> {
    let output = Command::new("nft").args(["list", "tables"]).output().context("nft")?;
    let name = format!("kiln{block}");
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter(|line| line.split_whitespace().last() == Some(&name))
        .map(str::to_owned)
        .collect())
}
