//! Where and with what a run is made.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::record::load;

/// Programs whose versions matter, and how each tells its own.
const PROGRAMS: [(&str, &[&str]); 9] = [
    ("podman", &["podman", "--version"]),
    ("buildah", &["buildah", "--version"]),
    ("runc", &["runc", "--version"]),
    ("crun", &["crun", "--version"]),
    ("runsc", &["runsc", "--version"]),
    ("umoci", &["umoci", "--version"]),
    ("skopeo", &["skopeo", "--version"]),
    ("docker-registry", &["docker-registry", "--version"]),
    ("gzip", &["gzip", "--version"]),
];

/// Names and values.
pub(crate) fn facts(kiln: &Path, runs: u32, seed: u64) -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1));
    let memory: u64 = memory.and_then(|kib| kib.parse().ok()).unwrap_or_default();
    let peers: serde_json::Map<String, Value> = PROGRAMS
        .iter()
        .map(|(name, words)| ((*name).to_owned(), json!(first_line(words))))
        .collect();
    json!({
        "date": jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "cpu": model.unwrap_or_default().trim_start_matches(['\t', ':', ' ']),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory_mib": memory / 1024,
        "file_system": first_line(&["stat", "-f", "-c", "%T", "/var/tmp"]),
        "load_at_start": load(),
        "kiln": first_line(&[&kiln.display().to_string(), "--version"]),
        "commit": commit(),
        "runs": runs,
        "seed": seed,
        "peers": peers,
    })
}

/// The commit, marked when the tree has changes.
fn commit() -> String {
    let commit = first_line(&["git", "rev-parse", "--short=12", "HEAD"]);
    let changed = first_line(&["git", "status", "--porcelain", "--untracked-files=no"]);
    if changed.is_empty() { commit } else { format!("{commit}, with changes") }
}

fn first_line(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}
