//! What every [`BlobStore`] must do, as one suite that its tests run.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Barrier;

use kiln_types::Digest;

use crate::{BlobInfo, BlobStore, ContentError, READ_LIMIT};

type Check = fn(&dyn BlobStore);

/// Runs the whole suite. `make` gives a new, empty store at each call.
///
/// # Panics
/// With what the store did wrong.
pub fn run(make: impl Fn() -> Box<dyn BlobStore>) {
    let checks: [(&str, Check); 10] = [
        ("blobs of any size come back whole", sizes),
        ("content other than announced is refused", wrong_digest),
        ("what is missing is not found", missing),
        ("the size is proved", prove),
        ("a blob is verified byte by byte", verified),
        ("a dropped writer leaves nothing", dropped),
        ("a writer's file can be read while it is written", read_back),
        ("committing again keeps one blob", again),
        ("concurrent commits of one content all succeed", concurrent),
        ("too large a blob is opened but not read", too_large),
    ];
    for (name, check) in checks {
        tracing::info!(name, "conformance");
        let store = make();
        assert_eq!(store.list().expect("list"), [], "{name}: `make` must give an empty store");
        check(store.as_ref());
    }
}

/// Bytes that repeat with no power of two.
fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

fn sizes(store: &dyn BlobStore) {
    const K: usize = 1 << 10;
    let mut all = Vec::new();
    for size in [0, 1, K, 255 * K, 256 * K - 1, 256 * K, 256 * K + 1, 1025 * K + 7] {
        for chunk in [1000, 64 * K, 256 * K, 2048 * K] {
            let bytes = content(size);
            let digest = Digest::of(&bytes);
            let mut writer = store.writer().expect("writer");
            for piece in bytes.chunks(chunk) {
                writer.write_all(piece).expect("write");
            }
            let info = BlobInfo { digest, size: size as u64 };
            assert_eq!(writer.commit(Some(&digest)).expect("commit"), info);
            assert_eq!(store.info(&digest).expect("info"), info);
            assert!(store.read(&digest).expect("read") == bytes, "{size} bytes by {chunk}");
            let mut opened = Vec::new();
            store.open(&digest).expect("open").read_to_end(&mut opened).expect("read");
            assert!(opened == bytes, "{size} bytes by {chunk}, opened");
            assert!(std::fs::read(store.path(&digest)).expect("path") == bytes);
            if !all.contains(&info) {
                all.push(info);
            }
        }
    }
    let mut listed = store.list().expect("list");
    listed.sort_by_key(|info| info.size);
    assert_eq!(listed, all);
    assert_eq!(store.put(b"kiln").expect("put"), BlobInfo { digest: Digest::of("kiln"), size: 4 });
    assert_eq!(store.read(&Digest::of("kiln")).expect("read"), b"kiln");
}

fn wrong_digest(store: &dyn BlobStore) {
    let (announced, sent) = (Digest::of("announced"), Digest::of("sent"));
    let mut writer = store.writer().expect("writer");
    writer.write_all(b"sent").expect("write");
    match writer.commit(Some(&announced)) {
        Err(ContentError::WrongDigest { expected, found }) => {
            assert_eq!((expected, found), (announced, sent));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.list().expect("list"), []);
}

fn missing(store: &dyn BlobStore) {
    let digest = Digest::of("never stored");
    let is_not_found =
        |error| matches!(error, ContentError::NotFound { digest: named } if named == digest);
    assert!(is_not_found(store.info(&digest).expect_err("info")));
    assert!(is_not_found(store.open(&digest).expect_err("open")));
    assert!(is_not_found(store.read(&digest).expect_err("read")));
    assert!(is_not_found(store.prove(&digest, 1).expect_err("prove")));
    store.remove(&digest).expect("removing what is not there");
    store.put(b"never stored").expect("put");
    store.remove(&digest).expect("remove");
    assert!(is_not_found(store.info(&digest).expect_err("info after remove")));
    assert_eq!(store.list().expect("list"), []);
}

fn prove(store: &dyn BlobStore) {
    let digest = store.put(b"four").expect("put").digest;
    store.prove(&digest, 4).expect("prove");
    match store.prove(&digest, 5) {
        Err(ContentError::WrongSize { expected: 5, found: 4, digest: named }) => {
            assert_eq!(named, digest);
        }
        other => panic!("{other:?}"),
    }
}

fn verified(store: &dyn BlobStore) {
    for size in [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 17] {
        let digest = store.put(&content(size)).expect("put").digest;
        let mut seen = 0;
        let found = store.verify(&digest, &mut |more| seen += more).expect("verify");
        assert_eq!((found, seen), (size as u64, size as u64));
    }
    let missing = Digest::of("never stored");
    let error = store.verify(&missing, &mut |_| {}).expect_err("verify");
    assert!(matches!(error, ContentError::NotFound { digest } if digest == missing));
}

fn dropped(store: &dyn BlobStore) {
    let mut writer = store.writer().expect("writer");
    writer.write_all(&content(600 << 10)).expect("write");
    let path = writer.path();
    assert!(path.exists(), "{} must be the temporary file", path.display());
    drop(writer);
    assert!(!path.exists(), "{} was left", path.display());
    assert_eq!(store.list().expect("list"), []);
}

fn read_back(store: &dyn BlobStore) {
    let bytes = content(700 << 10);
    let (first, second) = bytes.split_at(300_001);
    let mut writer = store.writer().expect("writer");
    writer.write_all(first).expect("write");
    writer.flush().expect("flush");
    let mut read = Vec::new();
    let mut file = writer.file();
    file.seek(SeekFrom::Start(0)).expect("seek");
    file.read_to_end(&mut read).expect("read");
    assert!(read == first, "what was flushed is in the file");
    file.seek(SeekFrom::Start(17)).expect("seek");
    assert_eq!(writer.digest(), Digest::of(first), "flushed or not");
    writer.write_all(second).expect("write");
    assert_eq!(writer.digest(), Digest::of(&bytes));
    let info = writer.commit(None).expect("commit");
    assert_eq!(info, BlobInfo { digest: Digest::of(&bytes), size: bytes.len() as u64 });
    assert!(store.read(&info.digest).expect("read") == bytes);
}

fn again(store: &dyn BlobStore) {
    let bytes = content(10_000);
    let digest = store.put(&bytes).expect("put").digest;
    let opened = store.open(&digest).expect("open");
    assert_eq!(store.put(&bytes).expect("put again").digest, digest);
    let mut writer = store.writer().expect("writer");
    writer.write_all(&bytes).expect("write");
    assert_eq!(writer.commit(Some(&digest)).expect("commit").digest, digest);
    assert_eq!(store.list().expect("list").len(), 1);
    store.remove(&digest).expect("remove");
    let mut read = Vec::new();
    (&opened).read_to_end(&mut read).expect("read");
    assert!(read == bytes, "an open blob outlives its removal");
}

fn concurrent(store: &dyn BlobStore) {
    const THREADS: usize = 8;
    for round in 0..10 {
        let bytes = content(200_000 + round);
        let barrier = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (bytes, barrier) = (&bytes, &barrier);
                scope.spawn(move || {
                    let mut writer = store.writer().expect("writer");
                    writer.write_all(bytes).expect("write");
                    barrier.wait();
                    let info = writer.commit(None).expect("commit");
                    assert_eq!(info.digest, Digest::of(bytes));
                    // Visible at once, to whoever committed it.
                    store.prove(&info.digest, bytes.len() as u64).expect("prove");
                    store.put(format!("{round} {thread}").as_bytes()).expect("put");
                });
            }
        });
        assert!(store.read(&Digest::of(&bytes)).expect("read") == bytes);
        assert_eq!(store.list().expect("list").len(), (round + 1) * (THREADS + 1));
    }
}

fn too_large(store: &dyn BlobStore) {
    let mut writer = store.writer().expect("writer");
    let chunk = vec![0; 1 << 20];
    for _ in 0..READ_LIMIT >> 20 {
        writer.write_all(&chunk).expect("write");
    }
    writer.write_all(b"!").expect("write");
    let info = writer.commit(None).expect("commit");
    assert_eq!(info.size, READ_LIMIT + 1);
    assert!(matches!(
        store.read(&info.digest),
        Err(ContentError::TooLarge { size, limit: READ_LIMIT, .. }) if size == READ_LIMIT + 1
    ));
    store.open(&info.digest).expect("open");
}
