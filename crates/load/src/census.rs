//! What a daemon holds on its host, counted.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::daemon::Daemon;

/// How long what is being cleaned up in the background may take.
const SETTLE: Duration = Duration::from_secs(30);
/// So many looks in a row that see the same are rest.
const LOOKS: usize = 10;

/// Counts by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Census {
    /// What must be the same before and after.
    counts: BTreeMap<&'static str, usize>,
    /// What the daemon has open, for the message.
    descriptors: Vec<String>,
    /// The daemon's resident memory in KiB: printed, and bounded.
    pub(crate) rss: u64,
    /// The database with its log in bytes: printed.
    pub(crate) database: u64,
}

impl Census {
    /// Counts now.
    pub(crate) fn take(daemon: &Daemon) -> Self {
        let (pid, data) = (daemon.pid(), daemon.data());
        let family = family(pid);
        let block = block(&data);
        let mut clients = connections(&data);
        clients.extend(connections_to(&daemon.registry.host()));
        let open = |pid: &u32| -> Vec<String> {
            let all = entries(Path::new(&format!("/proc/{pid}/fd")));
            let targets = all.iter().filter_map(|entry| fs::read_link(entry.path()).ok());
            let targets = targets.map(|target| target.to_string_lossy().into_owned());
            targets.filter(|target| !clients.contains(target)).collect()
        };
        let mut descriptors = open(&pid);
        descriptors.sort();
        let mut counts = BTreeMap::from([
            ("processes", family.len()),
            ("descriptors", descriptors.len()),
            ("descriptors of its processes", family.iter().map(|pid| open(pid).len()).sum()),
            ("threads", entries(Path::new(&format!("/proc/{pid}/task"))).len()),
            ("mounts", lines(&format!("/proc/{pid}/mountinfo"))),
            // Logs of builds are kept, and what is on a sandbox's disk is its own.
            ("files", tree(&data, &|path| !path.ends_with("uppers") && !path.ends_with("builds"))),
            ("disks", entries(&data.join("uppers")).len()),
        ]);
        if let Some(block) = block {
            counts.insert("interfaces", interfaces(&format!("kiln{block}s")));
            counts.insert("control groups", groups(&format!("kiln-{block}")));
            counts.insert("lines of nftables", nftables(&format!("kiln{block}")));
        }
        let database = ["kiln.sqlite", "kiln.sqlite-wal"].map(|name| data.join(name));
        let database =
            database.iter().filter_map(|path| fs::metadata(path).ok()).map(|about| about.len());
        Self { counts, descriptors, rss: rss(pid), database: database.sum() }
    }

    /// Counts until it stays the same for a while: what is kept ready has to be made again after use.
    pub(crate) async fn at_rest(daemon: &Daemon) -> Self {
        let deadline = Instant::now() + SETTLE;
        let (mut last, mut same) = (Self::take(daemon), 0);
        while same < LOOKS && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = Self::take(daemon);
            let steady = |census: &Self| {
                let mut counts = census.counts.clone();
                counts.remove("threads");
                counts
            };
            same = if steady(&now) == steady(&last) { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// Counts until it is as it was, or says what is not.
    pub(crate) async fn settled(daemon: &Daemon, before: &Self) -> Result<Self> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let now = Self::take(daemon);
            let more: Vec<String> = now
                .counts
                .iter()
                .filter(|(name, count)| before.counts.get(**name).is_none_or(|old| old < *count))
                // Threads of the runtime's pool for blocking calls come and go by its own rules.
                .filter(|(name, _)| **name != "threads")
                .map(|(name, count)| {
                    let old = before.counts.get(name).copied().unwrap_or_default();
                    format!("{name}: {old} before, {count} after")
                })
                .collect();
            if more.is_empty() {
                return Ok(now);
            }
            if Instant::now() > deadline {
                let known = |open: &&String| before.descriptors.contains(open);
                let new: Vec<_> = now.descriptors.iter().filter(|open| !known(open)).collect();
                bail!("something was left behind: {}; open now: {new:?}", more.join("; "));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl std::fmt::Display for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, count) in &self.counts {
            write!(f, "{name} {count}, ")?;
        }
        write!(f, "rss {} MiB, database {} KiB", self.rss >> 10, self.database >> 10)
    }
}

fn entries(directory: &Path) -> Vec<fs::DirEntry> {
    fs::read_dir(directory).into_iter().flatten().flatten().collect()
}

/// The ends of the connections that clients keep open for later, as descriptors show them: how many
/// there are is the clients' choice.
fn connections(data: &Path) -> HashSet<String> {
    let data = data.to_string_lossy().into_owned();
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let path = words.get(7)?.strip_prefix(&data)?;
            path.starts_with("/kiln.").then(|| format!("socket:[{}]", words[6]))
        })
        .collect()
}

/// The ends of connections to this address: the daemon keeps some to a registry open for later, too.
fn connections_to(address: &str) -> HashSet<String> {
    let port = address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let end = format!(":{:04X}", port.unwrap_or_default());
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let to = lines.filter(|words| words.get(2).is_some_and(|remote| remote.ends_with(&end)));
    to.filter_map(|words| Some(format!("socket:[{}]", words.get(9)?))).collect()
}

fn lines(file: &str) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().count()
}

/// The process and all that descend from it.
fn family(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = entries(Path::new("/proc"))
        .iter()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, above)| *above == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

/// How many files and directories there are, not counting what is below where `enter` says no.
fn tree(directory: &Path, enter: &dyn Fn(&Path) -> bool) -> usize {
    entries(directory)
        .iter()
        .map(|entry| {
            let path = entry.path();
            let inner = entry.file_type().is_ok_and(|kind| kind.is_dir()) && enter(&path);
            1 + if inner { tree(&path, enter) } else { 0 }
        })
        .sum()
}

/// The number of the daemon's share of the host.
fn block(data: &Path) -> Option<u8> {
    let data = data.canonicalize().ok()?;
    (0..=u8::MAX).find(|number| {
        fs::read(format!("/run/kiln/{number}"))
            .is_ok_and(|owner| owner == data.as_os_str().as_encoded_bytes())
    })
}

fn interfaces(prefix: &str) -> usize {
    let names = entries(Path::new("/sys/class/net"));
    names.iter().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).count()
}

/// Groups of the daemon's in all hierarchies.
fn groups(name: &str) -> usize {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = entries(root).into_iter().map(|entry| entry.path());
    let tops = hierarchies.chain([root.to_owned()]).map(|top| top.join(name));
    tops.filter(|top| top.is_dir()).map(|top| directories(&top)).sum()
}

/// What the control groups of the daemon's sandboxes are charged for, in bytes.
pub(crate) fn memory(daemon: &Daemon) -> u64 {
    let Some(block) = block(&daemon.data()) else { return 0 };
    let root = Path::new("/sys/fs/cgroup");
    let files = [
        root.join(format!("kiln-{block}/memory.current")),
        root.join(format!("memory/kiln-{block}/memory.usage_in_bytes")),
    ];
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.filter_map(|text| text.trim().parse::<u64>().ok()).max().unwrap_or_default()
}

fn directories(directory: &Path) -> usize {
    let inner = entries(directory);
    let inner = inner.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    1 + inner.map(|entry| directories(&entry.path())).sum::<usize>()
}

fn nftables(name: &str) -> usize {
    let output = Command::new("nft").args(["list", "tables"]).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let tables = text.lines().filter(|line| line.ends_with(&format!(" {name}")));
    tables
        .map(|line| {
            let words: Vec<&str> = ["list"].into_iter().chain(line.split(' ')).collect();
            let output = Command::new("nft").args(words).output().map(|output| output.stdout);
            String::from_utf8_lossy(&output.unwrap_or_default()).lines().count()
        })
        .sum()
}

fn rss(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
