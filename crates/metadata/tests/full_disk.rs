//! A full file system is an ordinary error, and what was stored is untouched.

use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_metadata::conformance::sample;
use kiln_metadata::{MetadataStore, SqliteStore};
use kiln_types::ErrorCode;
use tempfile::TempDir;

/// A mounted tmpfs of 2 MiB, unmounted when dropped.
struct Small {
    directory: TempDir,
    mount: PathBuf,
}

impl Small {
    /// `Err` with the reason when this host does not allow it.
    fn mount() -> Result<Self, String> {
        let directory = TempDir::new().unwrap();
        let mount = directory.path().join("mount");
        std::fs::create_dir(&mount).unwrap();
        let mut command = Command::new("mount");
        succeed(command.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&mount))?;
        Ok(Self { directory, mount })
    }

    fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: connections may still be closing.
        if let Err(error) = succeed(Command::new("umount").arg("--lazy").arg(&self.mount)) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_is_an_error_that_changes_nothing() {
    let small = match Small::mount() {
        Ok(small) => small,
        Err(reason) => return eprintln!("SKIP {reason}"),
    };
    let store = SqliteStore::open(small.path().join("kiln.db")).await.unwrap();
    let image = sample::stored_image(&store, "x").await;
    let mut stored = 0;
    let error = loop {
        let mut sandbox = sample::sandbox(&image);
        sandbox.slot = Some(stored);
        sandbox.env.insert("A".into(), "x".repeat(30_000));
        match store.insert_sandbox(&sandbox).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "2 MiB hold no 30 MB");
    };
    assert!(error.is_storage_full(), "{error:?}");
    assert_eq!(error.code(), ErrorCode::StorageFull);
    assert!(error.to_string().starts_with("the database could not insert sandbox sbx_"), "{error}");
    // Many at once: each is told why, whatever became of the connection in the transaction before.
    let refused: Vec<_> = (0..64)
        .map(|number| {
            let (store, mut sandbox) = (store.clone(), sample::sandbox(&image));
            sandbox.slot = Some(stored + number);
            sandbox.env.insert("A".into(), "x".repeat(30_000));
            tokio::spawn(async move { store.insert_sandbox(&sandbox).await })
        })
        .collect();
    for refused in refused {
        let error = refused.await.unwrap().unwrap_err();
        assert!(error.is_storage_full(), "{error:?}");
    }
    let sandboxes = store.list_sandboxes(None, 1000).await.unwrap();
    assert_eq!(sandboxes.len() as u32, stored);

    // More space, and all goes on, for who has it open as for who opens it.
    succeed(Command::new("mount").args(["-o", "remount,size=16m"]).arg(small.path())).unwrap();
    let slot = store.reserve_slot(stored + 1).await.unwrap();
    store.release_slot(slot).await.unwrap();
    store.close().await;
    let store = SqliteStore::open(small.path().join("kiln.db")).await.unwrap();
    assert_eq!(store.list_sandboxes(None, 1000).await.unwrap(), sandboxes);
    assert_eq!(store.reserve_slot(stored + 1).await.unwrap(), stored);
    store.insert_sandbox(&sample::sandbox(&image)).await.unwrap();
    store.close().await;

    // Too little for a new database.
    let tiny = Small::mount().unwrap();
    succeed(Command::new("mount").args(["-o", "remount,size=64k"]).arg(tiny.path())).unwrap();
    let error = SqliteStore::open(tiny.path().join("kiln.db")).await.unwrap_err();
    assert!(error.is_storage_full(), "{error:?}");
}
