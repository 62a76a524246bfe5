//! The quick form of fuzzing: seeds, inputs that once broke something, and mutations of both.

use std::fs;
use std::path::Path;

use kiln_adversary::{Random, Target, seeds};

/// Inputs of `fuzz/regressions`, each of which once found a bug.
fn regressions(target: Target) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regressions");
    let Ok(entries) = fs::read_dir(directory.join(target.name())) else { return Vec::new() };
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), fs::read(&path).unwrap())
        })
        .collect()
}

fn replay(target: Target, mutations: usize) {
    let mut inputs = seeds(target);
    assert!(!inputs.is_empty(), "{target} has no seeds");
    inputs.extend(regressions(target));
    for (name, bytes) in &inputs {
        // Shown when the test fails.
        eprintln!("{target}: {name}");
        target.check(bytes);
    }
    let mut random = Random::new(0x6b69_6c6e);
    for number in 0..mutations {
        let bytes = mutate(&inputs, &mut random);
        let result = std::panic::catch_unwind(|| target.check(&bytes));
        if let Err(panic) = result {
            let path = std::env::temp_dir().join(format!("kiln-{target}-{number}"));
            fs::write(&path, &bytes).unwrap();
            eprintln!("{target}: mutation {number} is in {}", path.display());
            std::panic::resume_unwind(panic);
        }
    }
}

/// One to eight small changes to an input.
fn mutate(inputs: &[(String, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(inputs).1.clone();
    for _ in 0..=random.below(8) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.number() as u8,
            2 => bytes[at] = *random.pick(&[0, 0xff, b'/', b'.', b'0', b'"', b'\n', 0x80]),
            3 => bytes.truncate(at),
            4 => {
                let end = (at + 1 + random.below(600)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            5 => {
                let end = (at + 1 + random.below(600)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let other = &random.pick(inputs).1;
                let from = random.below(other.len().max(1)) / 512 * 512;
                let at = at / 512 * 512;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from.min(other.len())..]);
            }
        }
    }
    bytes
}

#[test]
fn tar() {
    replay(Target::Tar, 1_500);
}

#[test]
fn index() {
    replay(Target::Index, 2_000);
}

#[test]
fn manifest() {
    replay(Target::Manifest, 5_000);
}

#[test]
fn template() {
    replay(Target::Template, 5_000);
}

#[test]
fn protocol() {
    replay(Target::Protocol, 5_000);
}

#[test]
fn definition() {
    replay(Target::Definition, 5_000);
}
