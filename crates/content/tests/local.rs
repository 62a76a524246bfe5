//! The local store: the suite, and what only files can get wrong.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;

use kiln_content::{BlobStore, ContentError, LocalStore};
use kiln_types::{Digest, ErrorCode};
use proptest::prelude::*;
use tempfile::TempDir;

/// Every file below a directory, but no directories.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn conforms() {
    let directories = Mutex::new(Vec::new());
    kiln_content::conformance::run(|| {
        let directory = TempDir::new().unwrap();
        let store = LocalStore::open(directory.path().join("blobs")).unwrap();
        directories.lock().unwrap().push(directory);
        Box::new(store)
    });
    for directory in directories.into_inner().unwrap() {
        let root = directory.path().join("blobs");
        let left: Vec<_> = fs::read_dir(root.join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(files(&root).iter().all(|path| path.contains("/sha256/")));
    }
}

#[test]
fn layout_and_permissions() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("blobs");
    let store = LocalStore::open(&root).unwrap();
    let digest = store.put(b"content").unwrap().digest;
    let hex = digest.hex();
    assert_eq!(store.root(), root);
    assert_eq!(store.path(&digest), root.join("sha256").join(&hex[..2]).join(&hex));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&store.path(&digest)), 0o400);
    assert_eq!(mode(&root), 0o700);
    // A committed blob is the same file afterwards, also for a store opened later.
    let inode = fs::metadata(store.path(&digest)).unwrap().ino();
    let second = LocalStore::open(&root).unwrap();
    second.put(b"content").unwrap();
    let mut writer = second.writer().unwrap();
    writer.write_all(b"content").unwrap();
    writer.commit(None).unwrap();
    assert_eq!(fs::metadata(store.path(&digest)).unwrap().ino(), inode);
}

#[test]
fn damage_is_found() {
    let directory = TempDir::new().unwrap();
    let store = LocalStore::open(directory.path()).unwrap();
    let digest = store.put(b"content").unwrap().digest;
    fs::remove_file(store.path(&digest)).unwrap();
    fs::write(store.path(&digest), b"CONTENT").unwrap();
    let error = store.read(&digest).unwrap_err();
    assert!(
        matches!(error, ContentError::Corrupt { found, .. } if found == Digest::of("CONTENT")),
        "{error:?}"
    );
    assert_eq!(error.code(), ErrorCode::StoreCorrupt);
    store.remove(&digest).unwrap();
    store.put(b"content").unwrap();
    assert_eq!(store.read(&digest).unwrap(), b"content");

    // A blob of the wrong size cannot be the content, so a commit puts the content in its place.
    fs::remove_file(store.path(&digest)).unwrap();
    fs::write(store.path(&digest), b"cont").unwrap();
    assert!(matches!(store.prove(&digest, 7), Err(ContentError::WrongSize { found: 4, .. })));
    store.put(b"content").unwrap();
    assert_eq!(store.read(&digest).unwrap(), b"content");
}

#[test]
fn foreign_files_are_neither_listed_nor_removed() {
    let directory = TempDir::new().unwrap();
    let store = LocalStore::open(directory.path()).unwrap();
    let info = store.put(b"content").unwrap();
    let other_shard = if info.digest.hex().starts_with("00") { "01" } else { "00" };
    let foreign =
        ["sha256/00/README".to_owned(), format!("sha256/{other_shard}/{}", info.digest.hex())];
    for name in &foreign {
        fs::write(directory.path().join(name), b"?").unwrap();
    }
    assert_eq!(store.list().unwrap(), [info]);
    LocalStore::open(directory.path()).unwrap();
    for name in &foreign {
        assert!(directory.path().join(name).exists(), "{name}");
    }
}

#[test]
fn errors_name_the_file() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("no/such");
    let error = LocalStore::open(&missing).unwrap_err();
    assert_eq!(error.to_string(), format!("could not make the directory {}", missing.display()));
    assert_eq!(error.code(), ErrorCode::Internal);

    let file = directory.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = LocalStore::open(&file).unwrap_err();
    assert!(error.to_string().contains("file/sha256"), "{error}");

    let store = LocalStore::open(directory.path().join("blobs")).unwrap();
    let digest = Digest::of("a directory");
    fs::create_dir(store.path(&digest)).unwrap();
    let error = store.put(b"a directory").unwrap_err();
    assert!(error.to_string().contains(&digest.hex()), "{error}");
    assert!(store.list().is_err());
    assert_eq!(files(&store.root().join("tmp")), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However the bytes come, they are the same blob.
    #[test]
    fn pieces_do_not_matter(
        pieces in prop::collection::vec((0_usize..400_000, any::<u8>(), any::<bool>()), 0..8)
    ) {
        let directory = TempDir::new().unwrap();
        let store = LocalStore::open(directory.path()).unwrap();
        let mut whole = Vec::new();
        let mut writer = store.writer().unwrap();
        for (size, byte, flush) in pieces {
            let piece = vec![byte; size];
            writer.write_all(&piece).unwrap();
            if flush {
                writer.flush().unwrap();
            }
            whole.extend(piece);
        }
        let info = writer.commit(None).unwrap();
        prop_assert_eq!(info.digest, Digest::of(&whole));
        prop_assert_eq!(info.size, whole.len() as u64);
        prop_assert!(store.read(&info.digest).unwrap() == whole);
    }
}
