//! What a run that was killed has left on the host: its daemons, containers, networks and mounts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::kiln::Kiln;
use crate::peers::{OciRuntime, Podman};
use crate::place::Place;
use crate::processes::end;

/// Puts away what earlier runs have left. `program` is the `kiln` that clears up after its own daemons.
pub(crate) fn sweep(program: &Path) -> Result<()> {
    for place in Place::left()? {
        eprintln!("bench: an earlier run was killed: clearing up {}", place.path.display());
        if let Err(error) = clear(program, &place) {
            eprintln!("bench: {}: {error:#}", place.path.display());
        }
    }
    Ok(())
}

fn clear(program: &Path, place: &Place) -> Result<()> {
    let name = format!("/{}", place.name());
    // A container's monitor is needed to end the container in order.
    end(&name, |program| program != "conmon")?;
    for directory in place.directories() {
        for data in subdirectories(&directory)? {
            if data.join("kiln.sqlite").is_file() {
                // A daemon finds all that an earlier one has left, and removes its sandboxes at its end.
                Kiln::start(program, &data, &[], "127.0.0.1:1").map(drop)?;
            }
            if data.join("containers.conf").is_file() {
                drop(Podman::left(&data));
            }
        }
        for runtime in [
            OciRuntime::runc(&directory.join("runc")),
            OciRuntime::crun(&directory.join("crun"))?,
            OciRuntime::runsc(&directory.join("runsc")),
        ] {
            runtime.remove_left()?;
        }
    }
    end(&name, |_| true)
}

fn subdirectories(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
