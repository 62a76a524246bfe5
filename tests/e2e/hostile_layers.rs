//! Layers that try to reach the host, and their honest neighbours.
//!
//! Each case is an image of a private registry: a busybox root and one or more layers written byte by byte.
//! It is either refused, by layer, entry and reason, or it is what the format says, as seen from inside a
//! sandbox. Whatever happens, nothing of the host has changed: see [`canary`]. `KILN_LAYERS` selects how
//! layers are mounted; every case holds for each way.

mod attributes;
mod canary;
mod links;
mod names;
mod same_layer;
mod types;
mod whiteouts;

use std::fs;

use kiln_testkit::{Compression, ImageBuilder, Registry};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::daemon::Daemon;
use crate::fixture::busybox;

use canary::Canary;

/// What becomes of a case.
enum Outcome {
    /// The pull fails; its message holds all of these.
    Refused(Vec<String>),
    /// A shell script prints this in a sandbox.
    Shows(&'static str, String),
    /// No sandbox starts; the message holds this.
    Fails(&'static str),
}

struct Case {
    name: &'static str,
    layers: Vec<Vec<u8>>,
    outcome: Outcome,
}

/// `layers`, base first, are refused with a message that holds all of `parts`.
fn refused(name: &'static str, layers: Vec<Vec<u8>>, parts: &[&str]) -> Case {
    let parts = parts.iter().map(|part| (*part).to_owned()).collect();
    Case { name, layers, outcome: Outcome::Refused(parts) }
}

/// `layers`, base first, are accepted; `script` prints `expected`.
fn shows(
    name: &'static str,
    layers: Vec<Vec<u8>>,
    script: &'static str,
    expected: impl Into<String>,
) -> Case {
    Case { name, layers, outcome: Outcome::Shows(script, expected.into()) }
}

/// `layers`, base first, are accepted, but no sandbox starts; the message holds `part`.
fn fails(name: &'static str, layers: Vec<Vec<u8>>, part: &'static str) -> Case {
    Case { name, layers, outcome: Outcome::Fails(part) }
}

/// Runs a table of cases, each made for the path of the canaries.
fn run(cases: impl FnOnce(&str) -> Vec<Case>) {
    let runtime = Runtime::new().unwrap();
    let registry = runtime.block_on(Registry::start());
    let host = registry.host();
    let kiln =
        Daemon::start_with(&format!("[registries]\nplain_http = [{host:?}]\nattempts = 1\n"));
    let canary = Canary::new(&kiln.path("beside-the-data"));
    let root = fs::read(busybox()).unwrap();
    let mut faults = Vec::new();
    for (number, Case { name, layers, outcome }) in cases(canary.path()).into_iter().enumerate() {
        let mut image = ImageBuilder::new()
            .layer_bytes(root.clone(), Compression::Gzip)
            .config(json!({ "Env": ["PATH=/bin"] }));
        for (number, layer) in layers.into_iter().enumerate() {
            let compression = [Compression::None, Compression::Gzip, Compression::Zstd][number % 3];
            image = image.layer_bytes(layer, compression);
        }
        let image = image.build();
        registry.put("hostile", &format!("v{number}"), &image);
        let reference = format!("{host}/hostile:v{number}");
        let pulled = kiln.run(&["pull", &reference]);
        match outcome {
            Outcome::Refused(mut parts) => {
                // One of the layers that were added is named, too.
                if pulled.code != Some(1) {
                    faults.push(format!("{name}: not refused: {pulled}"));
                }
                let mut named = image.layers[1..].iter().map(ToString::to_string);
                let mut named_by_content = image.diff_ids[1..].iter().map(ToString::to_string);
                if !named.any(|layer| pulled.stderr.contains(&layer))
                    && !named_by_content.any(|layer| pulled.stderr.contains(&layer))
                {
                    parts.push("the digest of a layer".to_owned());
                }
                for part in parts.iter().filter(|part| !pulled.stderr.contains(*part)) {
                    faults.push(format!("{name}: no {part:?}: {pulled}"));
                }
                let left = kiln.run(&["run", &reference, "--", "true"]);
                if left.code == Some(0) {
                    faults.push(format!("{name}: refused, and runs"));
                }
            }
            Outcome::Shows(script, expected) => {
                let shown = kiln.run(&["run", &reference, "--", "sh", "-c", script]);
                if pulled.code != Some(0) || shown.code != Some(0) {
                    faults.push(format!("{name}: {pulled}\n{shown}"));
                } else if shown.stdout.trim_end() != expected {
                    faults.push(format!("{name}: {:?}, not {expected:?}", shown.stdout));
                }
            }
            Outcome::Fails(part) => {
                let failed = kiln.run(&["run", &reference, "--", "true"]);
                if pulled.code != Some(0) || failed.code == Some(0) {
                    faults.push(format!("{name}: {pulled}\n{failed}"));
                } else if !failed.stderr.contains(part) {
                    faults.push(format!("{name}: no {part:?}: {failed}"));
                }
            }
        }
        if let Some(change) = canary.change() {
            faults.push(format!("{name}: THE HOST CHANGED: {change}"));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(!kiln.log().contains("panicked"), "{}", kiln.log());
}
