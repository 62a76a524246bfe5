//! Disks that end where they should, and leave nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::daemon::{Daemon, eventually};
use crate::fixture::{busybox, template};

const MIB: u64 = 1 << 20;

/// A daemon whose disks are bounded, with an image `box`; `None`, said, where `KILN_UPPERS` is against it.
fn bounded(config: &str) -> Option<Daemon> {
    if std::env::var("KILN_UPPERS").is_ok_and(|uppers| uppers == "directory") {
        eprintln!("SKIP KILN_UPPERS=directory asks for disks that nothing bounds");
        return None;
    }
    let kiln = Daemon::start_with(config);
    kiln.build("box", &template("box", &busybox(), &[]));
    Some(kiln)
}

/// How many images have a loop device: it holds their lock.
fn in_use(kiln: &Daemon) -> usize {
    let images = fs::read_dir(kiln.data().join("uppers")).unwrap().map(|entry| entry.unwrap());
    let images = images.filter(|entry| entry.file_name().to_string_lossy().ends_with(".ext4"));
    images
        .filter(|image| {
            // It may be removed meanwhile.
            fs::File::open(image.path()).is_ok_and(|image| image.try_lock().is_err())
        })
        .count()
}

/// How many loop devices have a file of the daemon, with a name or without.
fn devices(kiln: &Daemon) -> usize {
    let uppers = kiln.data().join("uppers");
    let files = fs::read_dir("/sys/block").unwrap().filter_map(|entry| {
        fs::read_to_string(entry.unwrap().path().join("loop/backing_file")).ok()
    });
    files.filter(|file| Path::new(file.trim()).starts_with(&uppers)).count()
}

fn come_to(kiln: &Daemon, count: usize) {
    eventually("only disks in use have a device", || (in_use(kiln) == count).then_some(()));
}

/// Ends the daemon, after which nothing has a device.
fn end(mut kiln: Daemon) {
    assert_eq!(fs::read_dir(kiln.data().join("uppers")).unwrap().count(), 0);
    kiln.terminate();
    eventually("no loop device is left", || (devices(&kiln) == 0).then_some(()));
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

#[test]
fn heavy_a_full_disk_is_the_sandboxes_own() {
    let Some(kiln) = bounded("") else { return };
    let id = kiln.ok(&["create", "box", "--name", "full", "--disk", "100"]);
    kiln.ok(&["create", "box", "--name", "other", "--disk", "100"]);
    assert_eq!(kiln.json(&["ps"])[1]["limits"]["disk_mib"], 100);
    let shell = |name: &str, script: &str| kiln.run(&["exec", name, "--", "sh", "-c", script]);

    let outcome = shell("full", "dd if=/dev/zero of=/root/big bs=1M count=1000");
    assert!(outcome.stderr.contains("No space left on device"), "{outcome}");
    let written = number(&kiln.ok(&["exec", "full", "--", "stat", "-c", "%s", "/root/big"]));
    assert!((70 * MIB..=100 * MIB).contains(&written), "{written}");
    let image = kiln.data().join("uppers").join(format!("{id}.ext4"));
    let taken = || fs::metadata(&image).unwrap().blocks() * 512;
    kiln.ok(&["exec", "full", "--", "sync"]);
    assert!((written..=101 * MIB).contains(&taken()), "{} of the host", taken());

    // It still works, the other is not touched, and what is there can be kept.
    assert_eq!(kiln.ok(&["exec", "full", "--", "echo", "alive"]), "alive");
    let more = shell("full", "dd if=/dev/zero of=/root/more bs=1M count=1; rm /root/more");
    assert!(more.stderr.contains("No space left on device"), "{more}");
    kiln.ok(&["exec", "other", "--", "dd", "if=/dev/zero", "of=/root/x", "bs=1M", "count=20"]);
    kiln.ok(&["snapshot", "full", "kept"]);
    kiln.ok(&["stop", "full"]);
    come_to(&kiln, 1);
    kiln.ok(&["start", "full"]);
    assert_eq!(number(&kiln.ok(&["exec", "full", "--", "stat", "-c", "%s", "/root/big"])), written);

    // What is deleted inside, the host has again.
    kiln.ok(&["exec", "full", "--", "sh", "-c", "rm /root/big; sync"]);
    eventually("the host has its space again", || (taken() < 20 * MIB).then_some(()));

    // Files without content.
    let outcome = shell("full", "mkdir /root/n; cd /root/n; seq 1 20000 | xargs touch");
    assert!(outcome.stderr.contains("No space left on device"), "{outcome}");
    let files = number(&kiln.ok(&["exec", "full", "--", "sh", "-c", "ls /root/n | wc -l"]));
    let possible = 100 * MIB / (16 << 10);
    assert!((possible * 9 / 10..=possible).contains(&files), "{files} of {possible}");
    assert_eq!(kiln.ok(&["exec", "full", "--", "echo", "alive"]), "alive");

    kiln.ok(&["rm", "-f", "full", "other"]);
    assert!(!image.exists());
    let outcome =
        kiln.run(&["run", "--disk", "200", "kept", "--", "stat", "-c", "%s", "/root/big"]);
    assert_eq!(number(&outcome.stdout), written, "{outcome}");
    end(kiln);
}

#[test]
fn a_killed_daemon_finds_the_disks_in_use() {
    // Nothing in stock, so that every device is that of a disk in use.
    let Some(mut kiln) = bounded("pool_size = 0") else { return };
    for name in ["one", "two", "three"] {
        kiln.ok(&["create", "box", "--name", name]);
        kiln.ok(&["exec", name, "--", "sh", "-c", &format!("echo {name} > /root/name")]);
    }
    kiln.kill();
    assert_eq!((in_use(&kiln), devices(&kiln)), (3, 3), "sandboxes run on, on their disks");
    kiln.serve();
    // Read while it runs: the same device once more, not a second one.
    kiln.ok(&["exec", "one", "--", "sh", "-c", "echo later > /root/later"]);
    kiln.ok(&["snapshot", "one", "kept"]);
    assert_eq!(kiln.ok(&["run", "kept", "--", "cat", "/root/name", "/root/later"]), "one\nlater");
    eventually("the device of the fourth is gone", || (devices(&kiln) == 3).then_some(()));
    // Removed, stopped, stopped and started at once.
    kiln.ok(&["rm", "-f", "one"]);
    kiln.ok(&["stop", "two"]);
    kiln.ok(&["stop", "three"]);
    kiln.ok(&["start", "three"]);
    assert_eq!(kiln.ok(&["exec", "three", "--", "cat", "/root/name"]), "three");
    come_to(&kiln, 1);
    eventually("the devices of two are gone", || (devices(&kiln) == 1).then_some(()));
    kiln.kill();
    kiln.serve();
    kiln.ok(&["start", "two"]);
    assert_eq!(kiln.ok(&["exec", "two", "--", "cat", "/root/name"]), "two");
    kiln.ok(&["rm", "-f", "two", "three"]);
    eventually("no loop device is left", || (devices(&kiln) == 0).then_some(()));
    end(kiln);
}

#[test]
fn the_disk_of_a_step_is_bounded_too() {
    let Some(kiln) = bounded("build_disk_mib = 64") else { return };
    let spec = template("huge", &busybox(), &["dd if=/dev/zero of=/big bs=1M count=200"]);
    let file = kiln.path("huge.json");
    fs::write(&file, spec.to_string()).unwrap();
    let outcome = kiln.run(&["build", file.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    for part in ["No space left on device", "64 MiB", "build_disk_mib"] {
        assert!(outcome.stderr.contains(part), "no {part:?} in {outcome}");
    }
    let fits = template("fits", &busybox(), &["dd if=/dev/zero of=/big bs=1M count=20"]);
    kiln.build("fits", &fits);
    assert_eq!(number(&kiln.ok(&["run", "fits", "--", "stat", "-c", "%s", "/big"])), 20 * MIB);
    end(kiln);
}

#[test]
fn where_disks_are_not_bounded_nobody_says_they_are() {
    if std::env::var("KILN_UPPERS").is_ok_and(|uppers| uppers != "directory") {
        eprintln!("SKIP KILN_UPPERS asks for disks that are bounded");
        return;
    }
    let kiln = Daemon::start_with("uppers = \"directory\"");
    kiln.build("box", &template("box", &busybox(), &[]));
    let refused = kiln.run(&["create", "box", "--disk", "100"]);
    assert_ne!(refused.code, Some(0), "{refused}");
    assert!(refused.stderr.contains("`limits.disk_mib` is 100"), "{refused}");
    kiln.ok(&["create", "box", "--name", "plain"]);
    assert_eq!(kiln.json(&["ps"])[0]["limits"].get("disk_mib"), None);
    assert_eq!(devices(&kiln), 0);
}

/// A disk stays what it was made as.
#[test]
fn disks_of_both_kinds_live_on_one_host() {
    if std::env::var("KILN_UPPERS").is_ok() {
        eprintln!("SKIP KILN_UPPERS decides");
        return;
    }
    let mut kiln = Daemon::start_with("uppers = \"directory\"");
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "old"]);
    kiln.ok(&["exec", "old", "--", "sh", "-c", "echo old > /root/name"]);
    kiln.ok(&["stop", "old"]);
    kiln.terminate();
    fs::write(kiln.path("kiln.toml"), "uppers = \"image\"").unwrap();
    kiln.serve();
    kiln.ok(&["create", "box", "--name", "new"]);
    kiln.ok(&["exec", "new", "--", "sh", "-c", "echo new > /root/name"]);
    kiln.ok(&["start", "old"]);
    for name in ["old", "new"] {
        assert_eq!(kiln.ok(&["exec", name, "--", "cat", "/root/name"]), name);
    }
    come_to(&kiln, 1);
    kiln.ok(&["rm", "-f", "old", "new"]);
    end(kiln);
}
