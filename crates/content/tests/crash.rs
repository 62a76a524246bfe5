//! What a process leaves when it is killed, and what a second live one may rely on.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use kiln_content::{BlobStore, LocalStore};
use tempfile::TempDir;

const DIRECTORY: &str = "KILN_CONTENT_TEST_DIRECTORY";

/// Another process that has a half-written blob in the store; it goes on when its input ends.
struct Other {
    child: Child,
    temporary: PathBuf,
    // Open until it ended: it must not fail for want of a reader.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Other {
    /// Runs the test named `test` once more, as the other process.
    fn start(root: &Path, test: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(DIRECTORY, root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let temporary = output
            .find_map(|line| line.unwrap().split_once("TEMPORARY ").map(|(_, path)| path.into()))
            .expect("the other process says where it writes");
        Self { child, temporary, _output: output }
    }
}

/// Whether this process is meant to be the other one; it has done its work then.
#[expect(clippy::print_stdout, reason = "this is how the parent learns the path")]
fn was_the_other() -> bool {
    let Some(root) = std::env::var_os(DIRECTORY) else { return false };
    let store = LocalStore::open(root).unwrap();
    let mut writer = store.writer().unwrap();
    writer.write_all(&vec![7; 1 << 20]).unwrap();
    println!("TEMPORARY {}", writer.path().display());
    std::io::stdin().lines().for_each(drop);
    writer.commit(None).unwrap();
    true
}

#[test]
fn a_killed_process_leaves_nothing() {
    if was_the_other() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let mut other = Other::start(directory.path(), "a_killed_process_leaves_nothing");
    assert!(other.temporary.exists());
    other.child.kill().unwrap();
    other.child.wait().unwrap();
    assert!(other.temporary.exists(), "a killed process cannot clean up");
    let store = LocalStore::open(directory.path()).unwrap();
    assert!(!other.temporary.parent().unwrap().exists());
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn a_live_process_is_left_alone() {
    if was_the_other() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let mut other = Other::start(directory.path(), "a_live_process_is_left_alone");
    let store = LocalStore::open(directory.path()).unwrap();
    assert!(other.temporary.exists(), "another process still writes it");
    drop(other.child.stdin.take());
    assert!(other.child.wait().unwrap().success());
    assert_eq!(store.list().unwrap()[0].size, 1 << 20);
    assert!(!other.temporary.parent().unwrap().exists());
}

#[test]
fn stores_of_one_process_are_apart_also_when_opened_at_once() {
    let directory = TempDir::new().unwrap();
    let root = directory.path();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for round in 0..10 {
                    let store = LocalStore::open(root).unwrap();
                    let mut writer = store.writer().unwrap();
                    drop(store);
                    let content = format!("{thread} {round}");
                    writer.write_all(content.as_bytes()).unwrap();
                    writer.commit(None).unwrap();
                }
            });
        }
    });
    assert_eq!(LocalStore::open(root).unwrap().list().unwrap().len(), 80);
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
}
