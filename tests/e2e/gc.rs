//! `kiln gc`: what nothing needs goes, to the byte as the list says, and nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::fixture::{busybox, template};

/// Bytes on the disk of all that `gc` may remove.
fn on_disk(kiln: &Daemon) -> u64 {
    ["blobs/sha256", "indexes", "builds", "quarantine", "layers"]
        .iter()
        .map(|name| below(&kiln.data().join(name)))
        .sum()
}

/// Files, and directories below this one, as `du` counts them.
fn below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let found = entry.metadata().unwrap();
            let own = found.blocks() * 512;
            if found.is_dir() { own + below(&entry.path()) } else { own }
        })
        .sum()
}

fn kinds(report: &Value) -> Vec<String> {
    let items = report["items"].as_array().unwrap().iter();
    let mut kinds: Vec<_> = items.map(|item| item["kind"].as_str().unwrap().to_owned()).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[test]
fn gc_frees_what_its_dry_run_says_and_keeps_what_is_used() {
    let kiln = Daemon::start_with("[gc]\nkeep_builds = 1\n");
    let commands = ["echo one > /root/one"];
    kiln.build("box", &template("box", &busybox(), &commands));
    // The name moves to another image: the first has none any more, and a sandbox that keeps it.
    kiln.ok(&["create", "box", "--name", "keeper"]);
    kiln.build("box", &template("box", &busybox(), &["echo two > /root/two"]));
    // One that nobody keeps, and a step that no image has any more.
    kiln.build("box", &template("box", &busybox(), &["echo three > /root/three"]));
    kiln.build("box", &template("box", &busybox(), &["echo four > /root/four"]));

    // All of it is young; only builds are counted.
    let plan = kiln.json(&["gc", "--dry-run"]);
    assert_eq!(kinds(&plan), ["build"], "{plan}");
    let said = kiln.ok(&["gc", "--dry-run", "--all"]);
    assert!(said.contains("would be removed") && said.contains("KIND"), "{said}");
    let before = on_disk(&kiln);
    let plan = kiln.json(&["gc", "--dry-run", "--all"]);
    assert_eq!(on_disk(&kiln), before, "a dry run changes nothing");
    assert!(plan["dry_run"] == true && plan["bytes"].as_u64().unwrap() > 0, "{plan}");
    let done = kiln.json(&["gc", "--all"]);
    assert_eq!(done["items"], plan["items"]);
    assert_eq!(before - on_disk(&kiln), plan["bytes"].as_u64().unwrap());
    for kind in ["build", "document", "image", "index", "layer", "step"] {
        assert!(kinds(&done).iter().any(|found| found == kind), "no {kind} in {done}");
    }

    // What is used is as it was.
    assert_eq!(kiln.ok(&["exec", "keeper", "--", "cat", "/root/one"]), "one");
    kiln.ok(&["stop", "keeper"]);
    kiln.ok(&["start", "keeper"]);
    assert_eq!(kiln.ok(&["exec", "keeper", "--", "cat", "/root/one"]), "one");
    assert_eq!(kiln.ok(&["run", "box", "--", "cat", "/root/four"]), "four");
    assert_eq!(kiln.json(&["builds"]).as_array().unwrap().len(), 1);
    assert_eq!(kiln.ok(&["gc", "--all"]), "nothing to remove");
    assert_eq!(kiln.run(&["fsck"]).code, Some(0));

    let wrong = kiln.run(&["gc", "--keep", "3w"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("use h or d"), "{wrong}");
}

#[test]
fn gc_beside_builds_and_creates_breaks_neither() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &["echo one > /root/one"]));
    std::thread::scope(|scope| {
        let builds: Vec<_> = (0..3)
            .map(|builder: u32| {
                let kiln = &kiln;
                scope.spawn(move || {
                    for round in 0..4 {
                        let commands = [
                            format!("echo {builder} > /root/builder"),
                            format!("echo {round} > /root/round"),
                        ];
                        let commands = commands.each_ref().map(String::as_str);
                        let name = format!("b{builder}");
                        kiln.build(&name, &template(&name, &busybox(), &commands));
                        let shown = kiln.ok(&["run", &name, "--", "cat", "/root/round"]);
                        assert_eq!(shown, round.to_string());
                    }
                })
            })
            .collect();
        while builds.iter().any(|build| !build.is_finished()) {
            kiln.ok(&["gc", "--all"]);
            let report = kiln.run(&["fsck"]);
            assert_eq!(report.code, Some(0), "{report}\n{}", kiln.log());
        }
        for build in builds {
            build.join().unwrap();
        }
    });
    kiln.ok(&["gc", "--all"]);
    assert_eq!(kiln.ok(&["run", "box", "--", "cat", "/root/one"]), "one");
    assert_eq!(kiln.ok(&["gc", "--all"]), "nothing to remove");
}
