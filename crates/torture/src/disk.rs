//! Disks: a small one that gets full, and the files on them.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The size of a small disk.
const SIZE_MIB: u64 = 160;

/// A small file system in a file, mounted. Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    mounted: PathBuf,
}

impl SmallDisk {
    /// Makes one below `directory`.
    pub(crate) fn make(directory: &Path) -> Result<Self> {
        let image = directory.join("disk.img");
        let mounted = directory.join("disk");
        fs::create_dir_all(&mounted)?;
        File::create(&image)?.set_len(SIZE_MIB << 20)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-N", "16384", "-O", "^has_journal"])
            .arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted))?;
        Ok(Self { mounted })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }

    fn filler(&self) -> PathBuf {
        self.mounted.join("filler")
    }

    /// Leaves only so much room.
    pub(crate) fn fill(&self, free_kib: u64) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler())?;
        let block = vec![0_u8; 64 << 10];
        loop {
            let free = free(&self.mounted)?;
            let over = free.saturating_sub(free_kib << 10);
            if over < 4096 {
                return Ok(());
            }
            let length = block.len().min(over as usize);
            match file.write(&block[..length]) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(()),
            }
        }
    }

    /// Gives the room back.
    pub(crate) fn empty(&self) -> Result<()> {
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = run(Command::new("umount").arg(&self.mounted));
        if unmounted.is_err() {
            // Whatever still holds on to it is what the harness has complained about.
            drop(run(Command::new("umount").arg("-l").arg(&self.mounted)));
        }
    }
}

/// Free bytes.
pub(crate) fn free(path: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail * found.f_frsize)
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("could not start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
