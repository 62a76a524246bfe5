//! `kiln fsck`: what is damaged is found, with what depends on it, beside a daemon and without one.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kiln_testkit::{Compression, ImageBuilder, Registry};
use serde_json::Value;

use crate::daemon::{Daemon, KILN, Outcome};
use crate::fixture::{busybox, template};

/// A store with a built image, a snapshot and a sandbox.
fn filled() -> Daemon {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &["echo one > /root/one"]));
    kiln.ok(&["create", "box", "--name", "source"]);
    kiln.ok(&["exec", "source", "--", "sh", "-c", "echo two > /root/two"]);
    kiln.ok(&["snapshot", "source", "saved"]);
    kiln
}

/// The tar of the topmost layer of an image.
fn top_layer(kiln: &Daemon, name: &str) -> (String, PathBuf) {
    let images = kiln.json(&["images"]);
    let image = images.as_array().unwrap().iter().find(|image| {
        image["names"].as_array().unwrap().iter().any(|found| *found == format!("{name}:latest"))
    });
    let layers = image.unwrap()["layers"].as_array().unwrap();
    let digest = layers.last().unwrap()["diff_id"].as_str().unwrap().to_owned();
    let hex = digest.trim_start_matches("sha256:").to_owned();
    (digest, kiln.data().join("blobs/sha256").join(&hex[..2]).join(hex))
}

/// Flips a bit in the middle of a file, which keeps its size.
fn flip(path: &Path) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
}

fn fsck(kiln: &Daemon, arguments: &[&str]) -> (Outcome, Value) {
    let outcome = kiln.run(&[&["fsck", "--json"], arguments].concat());
    let report = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error}: {outcome}\n{}", kiln.log()));
    (outcome, report)
}

#[test]
fn damage_is_found_beside_a_daemon_and_without_one() {
    let mut kiln = filled();
    let (outcome, report) = fsck(&kiln, &[]);
    assert_eq!((outcome.code, &report["findings"]), (Some(0), &serde_json::json!([])), "{outcome}");
    assert!(report["checked"]["rows"].as_u64().unwrap() > 10, "{report}");
    let said = kiln.run(&["fsck"]);
    assert!(said.code == Some(0) && said.stdout.ends_with(": clean\n"), "{said}");

    let (digest, tar) = top_layer(&kiln, "saved");
    flip(&tar);
    let (outcome, report) = fsck(&kiln, &[]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    let [finding] = report["findings"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&finding["kind"], &finding["subject"]), (&"blob_damaged".into(), &digest.into()));
    assert_eq!(finding["affects"]["snapshots"], serde_json::json!(["saved"]));
    assert_eq!(finding["affects"]["names"], serde_json::json!(["saved:latest"]));
    assert_eq!(finding["way_out"], "lost");

    // Not beside a daemon that uses the directory.
    let directory = kiln.data();
    let directory = directory.to_str().unwrap();
    let refused = kiln.run(&["fsck", "--data-dir", directory]);
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(refused.stderr.contains(&kiln.pid().to_string()), "{refused}");
    kiln.ok(&["stop", "source"]);
    kiln.terminate();
    let (outcome, offline) = fsck(&kiln, &["--data-dir", directory]);
    assert_eq!((outcome.code, &offline["findings"]), (Some(1), &report["findings"]), "{outcome}");
    let unreachable = kiln.run(&["fsck"]);
    assert_eq!(unreachable.code, Some(125), "{unreachable}");
    assert!(KILN.ends_with("kiln"));
    flip(&tar);
    let (outcome, _) = fsck(&kiln, &["--data-dir", directory]);
    assert_eq!(outcome.code, Some(0), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_pulls_indexes_removes_and_puts_out_of_use() {
    let registry = Registry::start().await;
    let host = registry.host();
    let image =
        ImageBuilder::new().layer_bytes(fs::read(busybox()).unwrap(), Compression::Gzip).build();
    registry.put("team/app", "v1", &image);
    tokio::task::block_in_place(|| repair(&host));
}

fn repair(host: &str) {
    let kiln = Daemon::start_with(&format!("[registries]\nplain_http = [{host:?}]\n"));
    let name = format!("{host}/team/app:v1");
    kiln.ok(&["pull", &name]);
    let on_top = serde_json::json!({
        "name": "box", "base_image": name, "setup_commands": ["echo one > /root/one"],
    });
    kiln.build("box", &on_top);
    assert_eq!(kiln.ok(&["run", "box", "--", "cat", "/root/one"]), "one");

    // A layer that came from the registry, an index, and a file that is nobody's.
    let pulled = kiln.json(&["images"]);
    let pulled = pulled.as_array().unwrap().iter().find(|image| image["names"][0] == name).unwrap();
    let base = pulled["layers"][0]["diff_id"].as_str().unwrap().replace("sha256:", "");
    let base = kiln.data().join("blobs/sha256").join(&base[..2]).join(&base);
    let whole = fs::read(&base).unwrap();
    flip(&base);
    let (_, tar) = top_layer(&kiln, "box");
    let hex = tar.file_name().unwrap().to_str().unwrap();
    let index = kiln.data().join(format!("indexes/{hex}.erofs"));
    let index_bytes = fs::read(&index).unwrap();
    flip(&index);
    fs::write(kiln.data().join("blobs/notes"), "mine").unwrap();

    let (outcome, report) = fsck(&kiln, &[]);
    assert_eq!(outcome.code, Some(1));
    let kinds = |report: &Value| {
        let found = report["findings"].as_array().unwrap().iter();
        found.map(|finding| finding["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&report), ["blob_damaged", "index_damaged", "file_foreign"], "{report}");
    assert_eq!(report["findings"][0]["way_out"], "pull_again");
    let said = kiln.run(&["fsck"]);
    assert!(said.stdout.contains("way out: `kiln fsck --repair` fetches it again"), "{said}");

    let (outcome, report) = fsck(&kiln, &["--repair"]);
    assert_eq!((outcome.code, &report["clean"]), (Some(0), &true.into()), "{outcome}");
    assert_eq!((fs::read(&base).unwrap(), fs::read(&index).unwrap()), (whole, index_bytes));
    assert_eq!(fsck(&kiln, &[]).0.code, Some(0));
    assert_eq!(kiln.ok(&["run", "box", "--", "cat", "/root/one"]), "one");
    let aside: Vec<_> = fs::read_dir(kiln.data().join("quarantine")).unwrap().collect();
    assert_eq!(aside.len(), 1, "only what is not Kiln's is kept");

    // What was built here is put out of use, and a build makes it again.
    flip(&tar);
    let (outcome, report) = fsck(&kiln, &["--repair"]);
    assert_eq!((outcome.code, &report["clean"]), (Some(1), &false.into()), "{outcome}");
    let refused = kiln.run(&["create", "box", "--json"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("damaged"), "{refused}");
    kiln.build("box", &on_top);
    assert_eq!(kiln.ok(&["run", "box", "--", "cat", "/root/one"]), "one");
    // The image that was damaged has no name any more, and goes with the next collection.
    kiln.ok(&["gc", "--all"]);
    let (outcome, _) = fsck(&kiln, &[]);
    assert_eq!(outcome.code, Some(0), "{outcome}");
}

#[test]
fn a_lost_database_is_not_silently_made_anew() {
    let mut kiln = filled();
    kiln.ok(&["rm", "-f", "source"]);
    kiln.terminate();
    let database = kiln.data().join("kiln.sqlite");
    let files = ["kiln.sqlite", "kiln.sqlite-wal", "kiln.sqlite-shm"];
    fs::create_dir(kiln.path("aside")).unwrap();
    let copy = |from: &Path, to: &Path| {
        for file in files.iter().filter(|file| from.join(file).exists()) {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
    };
    copy(&kiln.data(), &kiln.path("aside"));
    // Gone with and without its log, empty, and without its log alone: a file of one page and no tables.
    for (gone, empty) in
        [(&files[..1], false), (&files, false), (&files[1..], true), (&files[1..], false)]
    {
        copy(&kiln.path("aside"), &kiln.data());
        for file in gone {
            let _ = fs::remove_file(kiln.data().join(file));
        }
        if empty {
            fs::write(&database, "").unwrap();
        }
        if gone.len() == 2 && !empty && fs::metadata(&database).unwrap().len() > 4096 {
            // All of it was in the one file.
            continue;
        }
        let stored = || count(&kiln.data().join("blobs"));
        let before = stored();
        let directory = kiln.data();
        let refused = kiln.run(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            directory.to_str().unwrap(),
        ]);
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.contains("kiln.sqlite is missing or empty"), "{refused}");
        let (outcome, report) =
            fsck(&kiln, &["--repair", "--data-dir", directory.to_str().unwrap()]);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert_eq!(report["findings"][0]["kind"], "database_damaged");
        assert_eq!(stored(), before);
    }
    copy(&kiln.path("aside"), &kiln.data());
    kiln.serve();
    assert_eq!(kiln.ok(&["run", "saved", "--", "cat", "/root/two"]), "two");
    assert_eq!(fsck(&kiln, &[]).0.code, Some(0));
}

/// How many files are below a directory.
fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}
