//! Snapshots of running and of stopped sandboxes.

use serde_json::json;

use crate::daemon::Daemon;
use crate::fixture::{busybox, template};

const CHANGE: &str = "echo kept > /root/kept; ln /root/kept /root/link; rm /etc/group; \
    mkdir -p /a/b; mkfifo /a/fifo; ln -s /root/kept /a/sym; chmod 4755 /a/b; chown 1000:2000 /a; \
    rm -r /tmp; mkdir -m 1777 /tmp";
const SHOW: &str = "cat /root/kept; stat -c '%h' /root/kept; test -e /etc/group || echo removed; \
    test -p /a/fifo && readlink /a/sym; stat -c '%a' /a/b; stat -c '%u:%g' /a; stat -c '%a' /tmp; \
    cat /root/one";
const SHOWN: &str = "kept\n2\nremoved\n/root/kept\n4755\n1000:2000\n1777\none";

#[test]
fn s0_4_snapshot_of_a_running_and_of_a_stopped_sandbox() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &["echo one > /root/one"]));
    kiln.ok(&["create", "box", "--name", "source", "--memory", "300"]);
    kiln.ok(&["exec", "source", "--", "sh", "-c", CHANGE]);

    kiln.ok(&["snapshot", "source", "live"]);
    assert_eq!(kiln.ok(&["run", "live", "--", "sh", "-c", SHOW]), SHOWN);
    // The source runs on, and what it does afterwards is not in the snapshot.
    kiln.ok(&["exec", "source", "--", "sh", "-c", "echo later > /root/kept"]);
    assert_eq!(kiln.ok(&["run", "live", "--", "cat", "/root/kept"]), "kept");

    kiln.ok(&["stop", "source"]);
    kiln.ok(&["snapshot", "source", "still"]);
    assert_eq!(kiln.ok(&["run", "still", "--", "cat", "/root/kept"]), "later");

    // A snapshot is an image of its own: it outlives its source, and can be changed and saved again.
    kiln.ok(&["rm", "source"]);
    kiln.ok(&["create", "live", "--name", "child"]);
    // It is given what its source was given.
    assert_eq!(kiln.json(&["ps"])[0]["limits"]["memory_mib"], 300);
    // It is given what its source was given.
    assert_eq!(kiln.json(&["ps"])[0]["limits"]["memory_mib"], 300);
    kiln.ok(&["exec", "child", "--", "sh", "-c", "rm /root/link; echo group > /etc/group"]);
    kiln.ok(&["snapshot", "child", "grandchild"]);
    let script = "ls /root; cat /etc/group";
    assert_eq!(kiln.ok(&["run", "grandchild", "--", "sh", "-c", script]), "kept\none\ngroup");

    let names: Vec<_> = kiln
        .json(&["snapshots"])
        .as_array()
        .unwrap()
        .iter()
        .map(|snapshot| snapshot["name"].clone())
        .collect();
    assert_eq!(json!(names), json!(["grandchild", "still", "live"]));
    kiln.ok(&["snapshots", "rm", "live"]);
    assert_eq!(kiln.ok(&["exec", "child", "--", "cat", "/root/kept"]), "kept");
    let id = kiln.run(&["snapshot", "child", "snp_00000000000000000000000000000000"]);
    assert!(id.code == Some(1) && id.stderr.contains("snp_"), "{id}");
    let taken = kiln.run(&["snapshot", "child", "still"]);
    assert!(taken.code == Some(1) && taken.stderr.contains("still"), "{taken}");
}

#[test]
fn runtime_files_are_in_no_layer() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "s"]);
    kiln.ok(&["exec", "s", "--", "sh", "-c", "echo x > /root/x; cat /etc/resolv.conf /etc/hosts"]);
    kiln.ok(&["snapshot", "s", "clean"]);
    let images = kiln.json(&["images"]);
    let image =
        images.as_array().unwrap().iter().find(|image| {
            image["names"].as_array().unwrap().iter().any(|name| name == "clean:latest")
        });
    let layers = image.unwrap()["layers"].as_array().unwrap();
    let top = layers.last().unwrap()["diff_id"].as_str().unwrap().replace("sha256:", "");
    let tar = kiln.data().join("blobs/sha256").join(&top[..2]).join(&top);
    let list = std::process::Command::new("tar").arg("-tf").arg(&tar).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let mut names: Vec<_> = list.lines().map(|name| name.trim_start_matches("./")).collect();
    names.retain(|name| !matches!(*name, "" | "/" | "root/"));
    assert_eq!(names, ["root/x"], "{list}");
}
