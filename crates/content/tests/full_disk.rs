//! A full file system is an ordinary error that leaves nothing behind.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_content::{BlobStore, ContentError, LocalStore};
use kiln_types::ErrorCode;
use tempfile::TempDir;

/// A mounted file system of a few MiB, unmounted when dropped.
struct Small {
    directory: TempDir,
    mount: PathBuf,
}

impl Small {
    /// `Err` with the reason when this host does not allow it.
    fn mount(kind: &str) -> Result<Self, String> {
        let directory = TempDir::new().unwrap();
        let mount = directory.path().join("mount");
        fs::create_dir(&mount).unwrap();
        let mut command = Command::new("mount");
        if kind == "tmpfs" {
            command.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]);
        } else {
            let image = directory.path().join("image");
            fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
            succeed(Command::new("mke2fs").args(["-q", "-t", kind, "-m", "0"]).arg(&image))?;
            command.args(["-t", kind, "-o", "loop"]).arg(&image);
        }
        succeed(command.arg(&mount))?;
        Ok(Self { directory, mount })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(error) = succeed(Command::new("umount").arg(&self.mount)) {
            eprintln!("{error}; {} stays", self.directory.path().display());
            self.directory.disable_cleanup(true);
        }
    }
}

fn succeed(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// Writes and commits a blob of `size` bytes that nothing else has.
fn store_blob(store: &LocalStore, size: usize, seed: u8) -> Result<(), ContentError> {
    let mut writer = store.writer()?;
    for _ in 0..size / 65536 {
        writer.write_all(&vec![seed; 65536]).map_err(|source| ContentError::Io {
            action: "write",
            path: writer.path(),
            source,
        })?;
    }
    writer.commit(None).map(drop)
}

fn temporary_files(root: &Path) -> usize {
    fs::read_dir(root.join("tmp"))
        .unwrap()
        .map(|session| fs::read_dir(session.unwrap().path()).unwrap().count())
        .sum()
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing() {
    for kind in ["tmpfs", "ext4"] {
        let small = match Small::mount(kind) {
            Ok(small) => small,
            Err(reason) => {
                eprintln!("SKIP {kind}: {reason}");
                continue;
            }
        };
        let store = LocalStore::open(small.mount.join("blobs")).unwrap();
        store_blob(&store, 1 << 20, 1).unwrap();

        let error = store_blob(&store, 16 << 20, 2).unwrap_err();
        let ContentError::Io { source, path, .. } = &error else { panic!("{kind}: {error:?}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull, "{kind}");
        assert!(path.starts_with(&small.mount), "{kind}: {}", path.display());
        assert!(error.is_storage_full());
        assert_eq!(error.code(), ErrorCode::StorageFull);
        assert_eq!(store.list().unwrap().len(), 1, "{kind}");
        assert_eq!(temporary_files(store.root()), 0, "{kind}");

        // What was there is untouched, and what fits still goes in.
        let info = store.list().unwrap()[0];
        assert_eq!(store.read(&info.digest).unwrap(), vec![1; 1 << 20]);
        store_blob(&store, 1 << 20, 3).unwrap();
        assert_eq!(store.list().unwrap().len(), 2, "{kind}");
    }
}

#[test]
fn a_writer_may_try_again_when_there_is_space() {
    let small = match Small::mount("tmpfs") {
        Ok(small) => small,
        Err(reason) => return eprintln!("SKIP {reason}"),
    };
    let store = LocalStore::open(small.mount.join("blobs")).unwrap();
    let ballast = small.mount.join("ballast");
    fs::write(&ballast, vec![0; 3 << 20]).unwrap();
    let mut writer = store.writer().unwrap();
    let bytes: Vec<u8> = (0..2 << 20).map(|at: u32| (at % 253) as u8).collect();
    let mut accepted = 0;
    let error = loop {
        match writer.write(&bytes[accepted..bytes.len().min(accepted + 100_000)]) {
            Ok(count) => accepted += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    fs::remove_file(&ballast).unwrap();
    writer.write_all(&bytes[accepted..]).unwrap();
    let info = writer.commit(None).unwrap();
    assert!(store.read(&info.digest).unwrap() == bytes);
}
