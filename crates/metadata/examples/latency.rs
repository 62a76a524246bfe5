//! Measures how long the calls of the store take, on the disk that `TMPDIR` is on.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::time::{Duration, Instant};

use kiln_metadata::conformance::sample;
use kiln_metadata::{MetadataStore, SqliteStore};
use tempfile::TempDir;

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let [median, late] = [times.len() / 2, times.len() * 99 / 100].map(|at| times[at]);
    println!("{what}: median {median:?}, p99 {late:?}, n {}", times.len());
}

#[tokio::main]
async fn main() {
    let directory = TempDir::new().unwrap();
    let store = SqliteStore::open(directory.path().join("kiln.db")).await.unwrap();
    let image = sample::stored_image(&store, "x").await;
    let (mut reserve, mut insert, mut update, mut get) = (vec![], vec![], vec![], vec![]);
    for _ in 0..1000 {
        let started = Instant::now();
        let slot = store.reserve_slot(1000).await.unwrap();
        reserve.push(started.elapsed());
        let mut sandbox = sample::sandbox(&image);
        sandbox.slot = Some(slot);
        let started = Instant::now();
        store.insert_sandbox(&sandbox).await.unwrap();
        insert.push(started.elapsed());
        if slot < 200 {
            let started = Instant::now();
            store.update_sandbox(&sandbox).await.unwrap();
            update.push(started.elapsed());
            let started = Instant::now();
            store.get_sandbox(&sandbox.id).await.unwrap();
            get.push(started.elapsed());
        }
    }
    let list: Vec<_> = {
        let mut times = vec![];
        for _ in 0..20 {
            let started = Instant::now();
            assert_eq!(store.list_sandboxes(None, 1000).await.unwrap().len(), 1000);
            times.push(started.elapsed());
        }
        times
    };
    show("reserve_slot, of 0 to 1000 taken", reserve);
    show("insert_sandbox, first 200", insert[..200].to_vec());
    show("insert_sandbox, all", insert);
    show("update_sandbox", update);
    show("get_sandbox", get);
    show("list_sandboxes of 1000", list);
}
