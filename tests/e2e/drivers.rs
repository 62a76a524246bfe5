//! Sandboxes by other drivers than the native one, through all of their life.

use std::process::Command;

use crate::daemon::Daemon;
use crate::fixture::{busybox, debian, template};

/// Whether this machine has the runtime; says so if not.
fn installed(runtime: &str) -> bool {
    let there = Command::new(runtime).arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIP {runtime} is not installed");
    }
    there
}

fn lives(driver: &str) {
    if !installed(driver) {
        return;
    }
    let mut kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "one", "--driver", driver]);
    let shown = |kiln: &Daemon| kiln.json(&["ps"])[0].clone();
    assert_eq!(shown(&kiln)["driver"], driver);
    let exec = |kiln: &Daemon, script: &str| kiln.ok(&["exec", "one", "--", "sh", "-c", script]);
    exec(&kiln, "echo kept > /root/kept; echo lasting > /tmp/lasting; echo x > /dev/shm/gone");
    // A process that the daemon's end does not touch.
    exec(
        &kiln,
        "(while :; do echo x >> /root/ticks; sleep 0.05; done) </dev/null >/dev/null 2>&1 &",
    );

    kiln.ok(&["snapshot", "one", "saved"]);
    let look = "cat /root/kept /tmp/lasting; test -s /root/ticks && echo ticked; ls /dev/shm";
    assert_eq!(kiln.ok(&["run", "saved", "--", "sh", "-c", look]), "kept\nlasting\nticked");
    // The other way round: what the native driver has saved runs here.
    assert_eq!(
        kiln.ok(&["run", "saved", "--driver", driver, "--", "sh", "-c", look]),
        "kept\nlasting\nticked"
    );

    kiln.kill();
    kiln.serve();
    assert_eq!(shown(&kiln)["status"], "running", "{}", kiln.log());
    let count = || exec(&kiln, "wc -l < /root/ticks").trim().parse::<u64>().unwrap();
    let before = count();
    crate::daemon::eventually("a tick", || (count() > before).then_some(()));

    kiln.ok(&["stop", "one"]);
    assert_eq!(shown(&kiln)["status"], "stopped");
    kiln.ok(&["start", "one"]);
    assert_eq!(shown(&kiln)["driver"], driver);
    assert_eq!(exec(&kiln, "cat /root/kept; ls /dev/shm"), "kept");
    kiln.ok(&["stop", "one"]);
    kiln.terminate();
    kiln.serve();
    kiln.ok(&["start", "one"]);
    assert_eq!(exec(&kiln, "cat /root/kept"), "kept");
    kiln.ok(&["rm", "--force", "one"]);
    let left = std::fs::read_dir(kiln.data().join("run")).unwrap();
    let left: Vec<_> = left
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("sbx_"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_sandbox_lives_by_runc() {
    lives("runc");
}

#[test]
fn a_sandbox_lives_by_crun() {
    lives("crun");
}

#[test]
fn a_sandbox_lives_by_runsc() {
    lives("runsc");
}

#[test]
fn a_driver_that_is_not_there_is_said() {
    let mut kiln =
        Daemon::start_with("[oci.elsewhere]\nruntime = \"runc\"\npath = \"/no/such/runc\"\n");
    kiln.build("box", &template("box", &busybox(), &[]));
    for (driver, expected) in [
        ("podman", "there are native, runc, crun, runsc, elsewhere"),
        ("elsewhere", "there is no program /no/such/runc"),
    ] {
        let refused = kiln.run(&["create", "box", "--driver", driver]);
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.contains(expected), "{refused}");
        assert!(refused.stderr.contains("kiln doctor"), "{refused}");
    }
    assert_eq!(kiln.json(&["ps"]).as_array().unwrap().len(), 0);
    kiln.set("KILN_DRIVER", "elsewhere");
    kiln.terminate();
    let mut refused = Command::new(crate::daemon::KILN);
    refused.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(kiln.path("kiln.toml"));
    refused.arg("--data-dir").arg(kiln.data()).env("KILN_DRIVER", "elsewhere");
    let output = refused.output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there is no program /no/such/runc"), "{said}");
    kiln.set("KILN_DRIVER", "native");
}

#[test]
fn builds_run_on_the_configured_driver() {
    if !installed("runc") {
        return;
    }
    let kiln = Daemon::start_with("driver = \"runc\"\n");
    kiln.build("box", &template("box", &busybox(), &["echo built > /root/built"]));
    assert_eq!(kiln.ok(&["run", "box", "--", "cat", "/root/built"]), "built");
    kiln.ok(&["create", "box", "--name", "one"]);
    assert_eq!(kiln.json(&["ps"])[0]["driver"], "runc");
}

#[test]
fn heavy_apt_installs_by_runc_and_by_runsc() {
    for driver in ["runc", "runsc"] {
        if !installed(driver) {
            continue;
        }
        let kiln = Daemon::start();
        kiln.build("debian", &template("debian", &debian(), &[]));
        kiln.ok(&["create", "debian", "--name", "d", "--memory", "1024", "--driver", driver]);
        let script = "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update; \
            apt-get -qq install -y --no-install-recommends hello >/dev/null 2>&1; hello";
        let said = kiln.ok(&["exec", "d", "--", "sh", "-ec", script]);
        assert_eq!(said, "Hello, world!", "{driver}");
    }
}
