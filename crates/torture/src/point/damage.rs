//! Damage to files while the daemon is down.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use kiln_types::{BuildId, SandboxId};

use crate::epoch::Epoch;
use crate::fault::Damage;
use crate::rng::Rng;

/// Inflicts it. All kinds are such that the daemon has to get over them by itself, without a loss.
pub(super) fn inflict(
    epoch: &mut Epoch,
    damage: Damage,
    rng: &mut Rng,
    touched: &mut BTreeSet<String>,
) -> Result<()> {
    let data = epoch.daemon.data().to_owned();
    let mut images: Vec<String> = epoch.world.images.keys().cloned().collect();
    images.truncate(6);
    match damage {
        Damage::Leftovers => {
            fs::write(data.join("indexes/.new-left"), b"half")?;
            let disk = data.join("uppers/.making-1-0-left");
            fs::create_dir_all(disk.join("u/deep/er"))?;
            fs::create_dir_all(data.join("uppers/.removing-1-0-left/u"))?;
        }
        Damage::TornBlob => {
            let session = data.join("blobs/tmp/999999.0");
            fs::create_dir_all(&session)?;
            fs::write(session.join("0"), vec![7; rng.below(100_000) as usize])?;
        }
        Damage::IndexCut | Damage::IndexGrown | Damage::IndexGone => {
            if let Some(path) = some_file(&data.join("indexes"), rng)? {
                replace(&path)?;
                match damage {
                    Damage::IndexCut => {
                        let length = fs::metadata(&path)?.len();
                        cut(&path, rng.below(length.max(1)))?;
                    }
                    Damage::IndexGrown => grow(&path, rng)?,
                    _ => fs::remove_file(&path)?,
                }
            }
            touched.extend(images);
        }
        Damage::RecordCut => {
            let states = data.join("run");
            let mut records: Vec<PathBuf> = fs::read_dir(states)?
                .flatten()
                .map(|entry| entry.path().join("state.json"))
                .filter(|path| path.exists())
                .collect();
            records.sort();
            if !records.is_empty() {
                let path = rng.pick(&records);
                cut(path, rng.below(fs::metadata(path)?.len().max(1)))?;
                // It cannot be found again; it is stopped, and its disk is kept.
                for (name, sandbox) in &mut epoch.world.sandboxes {
                    sandbox.runs = None;
                    touched.insert(name.clone());
                }
            }
        }
        Damage::LogCut => {
            let mut logs: Vec<PathBuf> = fs::read_dir(data.join("builds"))?
                .flatten()
                .map(|entry| entry.path().join("log.jsonl"))
                .collect();
            logs.sort();
            if let Some(path) = logs.last() {
                cut(path, rng.below(fs::metadata(path)?.len().max(1)))?;
            }
        }
        Damage::OrphanBuild => {
            let directory = data.join("builds").join(BuildId::new().to_string());
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("log.jsonl"), b"{\"seq\":0")?;
        }
        Damage::OrphanDisk => {
            let name = if rng.chance(1, 2) { "build-" } else { "" };
            let directory = data.join("uppers").join(format!("{name}{}", SandboxId::new()));
            fs::create_dir_all(directory.join("u/bin"))?;
            fs::create_dir_all(directory.join("w"))?;
            fs::write(directory.join("u/bin/x"), b"x")?;
        }
        Damage::OrphanBlob => {
            let bytes = rng.next().to_le_bytes();
            let hex = kiln_types::Digest::of(bytes).hex();
            fs::write(data.join("blobs/sha256").join(&hex[..2]).join(&hex), bytes)?;
            fs::write(data.join("indexes").join(format!("{hex}.erofs")), b"no index")?;
        }
        Damage::WalGrown => {
            let path = data.join("kiln.sqlite-wal");
            if path.exists() {
                grow(&path, rng)?;
            }
        }
        Damage::BlobCut => {
            let mut temporary = Vec::new();
            for session in fs::read_dir(data.join("blobs/tmp"))?.flatten() {
                temporary.extend(fs::read_dir(session.path())?.flatten());
            }
            for entry in temporary {
                cut(&entry.path(), 1)?;
            }
        }
    }
    Ok(())
}

fn some_file(directory: &Path, rng: &mut Rng) -> Result<Option<PathBuf>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok((!files.is_empty()).then(|| rng.pick(&files).clone()))
}

/// Puts a copy in the place of an index: a running sandbox has the file itself mounted, and its damage
/// would be the sandbox's, which no crash can bring about.
fn replace(path: &Path) -> Result<()> {
    let copy = path.with_extension("copy");
    fs::copy(path, &copy)?;
    fs::rename(&copy, path)?;
    Ok(())
}

fn cut(path: &Path, length: u64) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    OpenOptions::new().write(true).open(path)?.set_len(length)?;
    Ok(())
}

fn grow(path: &Path, rng: &mut Rng) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let bytes: Vec<u8> = (0..=rng.below(9000)).map(|_| rng.next() as u8).collect();
    OpenOptions::new().append(true).open(path)?.write_all(&bytes)?;
    Ok(())
}
