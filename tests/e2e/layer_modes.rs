//! Both ways to mount layers, and the way from one to the other.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::daemon::Daemon;
use crate::fixture::{busybox, template};

/// What a sandbox sees of its image: attributes and content.
const LOOK: &str = "find /bin /opt /etc/mine /etc/hard /etc/passwd \
    -exec stat -c '%n %F %a %u:%g %h %Y' {} + | sort | sha256sum; \
    cat /etc/mine /etc/hard; ls -l /etc/gone 2>&1 | tail -1";

/// Steps with much of what a layer can have.
const STEPS: &[&str] = &[
    "echo mine > /etc/mine; ln /etc/mine /etc/hard; echo x > /etc/gone; mkdir -p /opt/a; echo 1 > /opt/a/b",
    "rm /etc/gone; rm -r /opt/a; mkdir /opt/a; chmod 1777 /opt; chmod 4755 /bin/busybox; mkfifo /opt/p",
];

fn start(kiln: &mut Daemon, mode: &str) {
    kiln.set("KILN_LAYERS", mode);
    kiln.serve();
}

fn laid_out(kiln: &Daemon) -> usize {
    fs::read_dir(kiln.data().join("layers")).map_or(0, Iterator::count)
}

#[test]
fn layers_are_mounted_in_another_way_after_a_restart() {
    let mut kiln = Daemon::start();
    kiln.terminate();
    start(&mut kiln, "directory");
    let doctor = kiln.command(&["doctor"]).env("KILN_LAYERS", "directory").output().unwrap();
    let doctor = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.contains("plain directories, as the configuration says"), "{doctor}");

    kiln.build("box", &template("box", &busybox(), STEPS));
    assert_eq!(laid_out(&kiln), 3, "the build has made all layers ready");
    let look = |kiln: &Daemon, name: &str| kiln.ok(&["exec", name, "--", "sh", "-c", LOOK]);
    kiln.ok(&["create", "box", "--name", "one"]);
    let change =
        "echo kept > /root/mine; rm /etc/hard; echo again > /etc/hard; ln /etc/hard /root/mine2";
    let seen = look(&kiln, "one");
    assert!(seen.contains("mine\nmine\n") && seen.contains("No such file"), "{seen}");
    kiln.ok(&["exec", "one", "--", "sh", "-c", change]);

    // What runs goes on, what is new is mounted the new way, and both see the same.
    kiln.terminate();
    start(&mut kiln, "erofs");
    assert_eq!(kiln.ok(&["exec", "one", "--", "cat", "/root/mine", "/etc/hard"]), "kept\nagain");
    assert_eq!(laid_out(&kiln), 3, "a sandbox runs on them");
    kiln.ok(&["create", "box", "--name", "two"]);
    assert_eq!(look(&kiln, "two"), seen);
    // The disk of a sandbox goes with any mount of its layers.
    kiln.ok(&["stop", "one"]);
    kiln.ok(&["start", "one"]);
    assert_eq!(kiln.ok(&["exec", "one", "--", "cat", "/root/mine", "/etc/hard"]), "kept\nagain");
    kiln.ok(&["snapshot", "one", "shot"]);
    kiln.ok(&["stop", "one"]);
    kiln.ok(&["stop", "two"]);
    kiln.terminate();
    start(&mut kiln, "erofs");
    assert_eq!(laid_out(&kiln), 0, "nothing runs on them any more");

    // And back.
    kiln.ok(&["start", "two"]);
    kiln.kill();
    start(&mut kiln, "directory");
    assert_eq!(look(&kiln, "two"), seen);
    assert_eq!(laid_out(&kiln), 0);
    kiln.ok(&["start", "one"]);
    assert_eq!(kiln.ok(&["exec", "one", "--", "cat", "/root/mine", "/etc/hard"]), "kept\nagain");
    assert_eq!(laid_out(&kiln), 3, "the first use lays them out");
    kiln.ok(&["create", "shot", "--name", "three"]);
    assert_eq!(kiln.ok(&["exec", "three", "--", "cat", "/root/mine", "/etc/hard"]), "kept\nagain");
    assert_eq!(laid_out(&kiln), 4);

    // What is removed is gone from the disk as well.
    for name in ["one", "two", "three"] {
        kiln.ok(&["rm", "-f", name]);
    }
    let mut images: Vec<String> = Vec::new();
    for image in kiln.json(&["images"]).as_array().unwrap() {
        let names = image["names"].as_array().unwrap().iter();
        images.extend(names.map(|name| name.as_str().unwrap().to_owned()));
    }
    kiln.ok(&["snapshots", "rm", "shot"]);
    for name in images {
        // The snapshot's name went with it.
        kiln.run(&["rmi", &name]);
    }
    for entry in fs::read_dir(kiln.data().join("layers")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.rsplit_once('.').unwrap().0;
        assert!(kiln.data().join(format!("indexes/{stem}.erofs")).exists(), "{name}");
    }
    assert!(laid_out(&kiln) < 3, "what is left is the base's");
}

/// A crash in the middle of a removal leaves a directory without an index.
#[test]
fn a_start_removes_laid_out_layers_that_are_gone() {
    let mut kiln = Daemon::start();
    kiln.terminate();
    start(&mut kiln, "directory");
    kiln.build("box", &template("box", &busybox(), &["echo 1 > /one"]));
    let before = laid_out(&kiln);
    let layers = kiln.data().join("layers");
    let stray = layers.join(format!("{}.{}", "ab".repeat(32), "0123456789abcdef"));
    kiln.kill();
    fs::create_dir_all(stray.join("tree/etc")).unwrap();
    fs::write(stray.join("record"), "bytes 4096\ninodes 2\n").unwrap();
    fs::create_dir_all(layers.join(".making-1-0-x/tree")).unwrap();
    kiln.serve();
    assert!(!stray.exists());
    assert_eq!(laid_out(&kiln), before);
    assert_eq!(kiln.ok(&["run", "box", "--", "cat", "/one"]), "1");
}

/// EROFS mounts no files of a tmpfs: a host that cannot do it, wherever this runs.
#[test]
fn a_host_without_erofs_takes_directories_unless_told_otherwise() {
    let mut kiln = Daemon::start();
    kiln.terminate();
    let data = kiln.data();
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    let _disk = Tmpfs::mount(&data);

    let refused = Command::new(crate::daemon::KILN)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .env("KILN_LAYERS", "erofs")
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("`layers` is `erofs`") && text.contains("`directory`"), "{text}");

    start(&mut kiln, "auto");
    assert!(kiln.log().contains("does not mount layers out of their own files"), "{}", kiln.log());
    kiln.build("box", &template("box", &busybox(), STEPS));
    assert_eq!(kiln.ok(&["run", "box", "--", "cat", "/etc/mine"]), "mine");
    let mut doctor = kiln.command(&["doctor"]);
    let doctor = doctor.env("KILN_LAYERS", "auto").env("KILN_DATA_DIR", &data).output().unwrap();
    let doctor = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.contains("plain directories, which take more disk"), "{doctor}");
    drop(kiln);
}

struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(at: &'a Path) -> Self {
        let mount = ["-t", "tmpfs", "-o", "size=1g", "kiln-e2e"];
        let status = Command::new("mount").args(mount).arg(at).status().unwrap();
        assert!(status.success(), "{status}");
        Self(at)
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy"]).arg(self.0).status();
    }
}

/// What a step or a session does to `/` itself is seen by whatever comes after it.
#[test]
fn changes_of_the_root_directory_are_kept() {
    let kiln = Daemon::start();
    let steps = ["chmod 1751 /; chown 0:1000 /", "echo x > /below", "true"];
    let build = kiln.build("box", &template("box", &busybox(), &steps));
    assert_eq!(build["status"], "succeeded", "{build}");
    let root = |name: &str| kiln.ok(&["exec", name, "--", "stat", "-c", "%a %u:%g", "/"]);
    kiln.ok(&["create", "box", "--name", "one"]);
    assert_eq!(root("one"), "1751 0:1000");
    // A session that changes nothing is its image still.
    kiln.ok(&["snapshot", "one", "same"]);
    let images = kiln.json(&["images"]);
    let layers = |name: &str| {
        let has = |image: &&serde_json::Value| {
            image["names"]
                .as_array()
                .unwrap()
                .iter()
                .any(|found| *found == format!("{name}:latest"))
        };
        let found = images.as_array().unwrap().iter().find(has).cloned().unwrap();
        found["layers"].as_array().unwrap().len()
    };
    assert_eq!(layers("box"), 3, "the step that did nothing has no layer: {images}");
    assert_eq!(layers("same"), 3, "{images}");
    kiln.ok(&["exec", "one", "--", "chmod", "711", "/"]);
    kiln.ok(&["stop", "one"]);
    kiln.ok(&["start", "one"]);
    assert_eq!(root("one"), "711 0:1000");
    kiln.ok(&["snapshot", "one", "changed"]);
    kiln.ok(&["create", "changed", "--name", "two"]);
    assert_eq!(root("two"), "711 0:1000");
}
