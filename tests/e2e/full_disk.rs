//! A full disk: clear refusals, and a way out that needs no room.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_testkit::skip;
use serde_json::Value;

use crate::daemon::Daemon;
use crate::fixture::{busybox, run, template};

/// A small file system, mounted. Unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(directory: &Path) -> Option<Self> {
        let (image, place) = (directory.join("disk.img"), directory.join("data"));
        fs::create_dir_all(&place).unwrap();
        fs::File::create(&image).unwrap().set_len(96 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-N", "8192"]).arg(&image));
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            skip("no loop device can be mounted");
            return None;
        }
        Some(Self(place))
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let mut filler = fs::File::create(self.0.join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while filler.write_all(&vec![1; size]).is_ok() {}
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        // The daemon's directory could not be removed with a mount in it.
        let _ = self.0.parent().map(fs::remove_dir_all);
    }
}

#[test]
fn a_full_disk_takes_removals_and_starts() {
    let (kiln, disk) = Daemon::start_after(Disk::mount);
    let Some(disk) = disk else { return };
    // In this order: the daemon ends before its disk goes.
    let mut kiln = kiln;
    kiln.build("one", &template("one", &busybox(), &["echo one > /one"]));
    kiln.build("two", &template("two", &busybox(), &["echo two > /two"]));
    kiln.ok(&["create", "one", "--name", "box"]);
    kiln.ok(&["create", "one", "--name", "other"]);
    kiln.ok(&["snapshot", "box", "shot"]);
    disk.fill();

    // Writes are refused with the code and the way out.
    let file = kiln.path("three.json");
    fs::write(&file, template("three", &busybox(), &["echo three > /three"]).to_string()).unwrap();
    let refused = kiln.run(&["build", file.to_str().unwrap(), "--name", "three"]);
    assert_ne!(refused.code, Some(0), "{refused}");
    assert!(refused.stderr.contains("removing images and sandboxes"), "{refused}");
    let problem = post(&kiln, "/v1/snapshots", r#"{"sandbox":"box","name":"no-room"}"#);
    assert_eq!((&problem["status"], &problem["code"]), (&507.into(), &"storage_full".into()));
    assert!(problem["hint"].as_str().unwrap().contains("free space"), "{problem}");

    // The daemon starts again, and removals work.
    kiln.kill();
    kiln.serve();
    kiln.ok(&["stop", "other"]);
    kiln.ok(&["rm", "-f", "box"]);
    kiln.ok(&["rmi", "two"]);
    kiln.ok(&["snapshots", "rm", "shot"]);
    kiln.ok(&["gc"]);

    // After that there is room again.
    fs::remove_file(disk.0.join("filler")).unwrap();
    kiln.ok(&["build", file.to_str().unwrap(), "--name", "three"]);
    assert_eq!(kiln.ok(&["run", "three", "--", "cat", "/three"]), "three");
    kiln.ok(&["rm", "-f", "other"]);
    drop(kiln);
}

fn post(kiln: &Daemon, path: &str, body: &str) -> Value {
    let key = kiln.api_key();
    let url = format!("{}{path}", kiln.url());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(url).bearer_auth(key).header("content-type", "application/json");
        request.body(body.to_owned()).send().await.unwrap().json().await.unwrap()
    })
}
