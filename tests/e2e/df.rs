//! `kiln df`: its numbers are those of the disk, and add up.

use std::process::Command;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::fixture::{busybox, template};

/// What `du` says of the data directory.
fn du(kiln: &Daemon) -> u64 {
    let output =
        Command::new("du").args(["-sx", "--block-size=1"]).arg(kiln.data()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn df_adds_up_to_the_data_directory() {
    let kiln = Daemon::start_with("pool_size = 0\nuppers = \"directory\"\n");
    kiln.build("one", &template("one", &busybox(), &["echo one > /root/one"]));
    kiln.build("two", &template("two", &busybox(), &["echo two > /root/two"]));
    kiln.ok(&["create", "one", "--name", "source"]);
    kiln.ok(&[
        "exec",
        "source",
        "--",
        "sh",
        "-c",
        "dd if=/dev/urandom of=/root/f bs=1k count=300; sync",
    ]);
    kiln.ok(&["snapshot", "source", "saved"]);
    kiln.ok(&["stop", "source"]);

    let usage = kiln.json(&["df"]);
    let parts: u64 = usage["parts"].as_object().unwrap().values().map(number).sum();
    assert_eq!(parts, number(&usage["total"]));
    let du = du(&kiln);
    // The database's log grows while it is looked at.
    let difference = number(&usage["total"]).abs_diff(du);
    assert!(difference <= 1 << 20, "{usage}\ndu: {du}");
    // The daemon's own program for sandboxes, and the directories that blobs lie in.
    assert!(number(&usage["parts"]["other"]) < 32 << 20, "{usage}");

    let images = usage["images"].as_array().unwrap();
    let named = |name: &str| {
        let has = |image: &&Value| image["names"].as_array().unwrap().iter().any(|n| *n == name);
        images.iter().find(has).unwrap()
    };
    for name in ["one:latest", "two:latest", "saved:latest"] {
        let image = named(name);
        let sum = number(&image["unique"]) + number(&image["shared"]);
        assert_eq!(sum, number(&image["total"]), "{image}");
        assert!(number(&image["shared"]) > number(&image["unique"]), "the base is shared: {image}");
    }
    let source = &usage["sandboxes"][0];
    assert!(source["name"] == "source" && number(&source["bytes"]) >= 300 << 10, "{source}");
    let saved = &usage["snapshots"][0];
    assert!(saved["name"] == "saved" && number(&saved["unique"]) >= 300 << 10, "{saved}");

    // What is said to be reclaimable is what is then freed.
    kiln.build("two", &template("two", &busybox(), &["echo three > /root/two"]));
    let all = number(&kiln.json(&["df"])["reclaimable_all"]);
    assert_eq!(number(&kiln.json(&["gc", "--all"])["bytes"]), all);
    let usage = kiln.json(&["df"]);
    assert_eq!(number(&usage["reclaimable_all"]), 0);

    let said = kiln.ok(&["df"]);
    for part in ["images", "build cache", "total", "OWN", "SHARED", "saved", "source", "kiln gc"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}
