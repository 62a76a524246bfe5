//! What root inside of a sandbox tries against the daemon, its neighbours and the users of the host.
//!
//! The system calls that it may try are in the suite that every driver passes; here is what takes a
//! whole daemon.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use crate::daemon::{Daemon, eventually};
use crate::fixture::{busybox, template};

/// A user who has nothing to do with Kiln.
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

fn daemon_with(sandboxes: &[&str]) -> Daemon {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    for name in sandboxes {
        kiln.ok(&["create", "box", "--name", name]);
    }
    kiln
}

fn address(kiln: &Daemon, name: &str) -> Ipv4Addr {
    let list = kiln.json(&["ps"]);
    let found = list.as_array().unwrap().iter().find(|sandbox| sandbox["name"] == name).unwrap();
    found["address"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_setuid_program_of_a_guest_is_out_of_reach_of_the_hosts_users() {
    let kiln = daemon_with(&["s"]);
    kiln.ok(&[
        "exec",
        "s",
        "--",
        "sh",
        "-c",
        "cp /bin/busybox /workspace/root-shell && chmod 4755 /workspace/root-shell \
         && ln -s /etc/shadow /workspace/link && sync",
    ]);
    kiln.ok(&["stop", "s"]);
    // The positive control: root of the host finds files below, so that the search is one.
    let data = kiln.data();
    assert!(fs::read_dir(&data).unwrap().count() > 3);
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o077, 0, "the data directory is open");
    let found = Command::new("setpriv")
        .args(NOBODY)
        .args(["find"])
        .arg(&data)
        .args(["-mindepth", "1"])
        .output()
        .unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    assert!(!found.status.success(), "the directory is closed, so the search must fail");
    for path in ["kiln.sock", "api-key", "kiln.sqlite"] {
        let read = Command::new("setpriv").args(NOBODY).arg("cat").arg(data.join(path)).output();
        assert!(!read.unwrap().status.success(), "{path} can be read by everybody");
    }
}

#[test]
fn the_api_the_host_and_the_neighbours_cannot_be_reached_from_inside() {
    let kiln = daemon_with(&["one", "two"]);
    let (one, two) = (address(&kiln, "one"), address(&kiln, "two"));
    let gateway =
        kiln.ok(&["exec", "one", "--", "sh", "-c", "ip route | awk '/default/{print $3}'"]);
    // Something of the host that listens everywhere, as a careless service does.
    let careless = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    careless.set_nonblocking(true).unwrap();
    let port = careless.local_addr().unwrap().port();
    let api: u16 = kiln.url().rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    // A neighbour that listens, which it finds itself.
    kiln.ok(&["exec", "two", "--", "sh", "-c", "(nc -l -p 7777 -e echo hello >/dev/null 2>&1 &) ; \
        for i in $(seq 50); do nc -w 1 127.0.0.1 7777 </dev/null | grep hello && exit 0; sleep 0.1; done; exit 1"]);
    kiln.ok(&["exec", "two", "--", "sh", "-c", "(nc -l -p 7777 -e echo hello >/dev/null 2>&1 &)"]);
    let host = host_address();
    let targets = [
        (gateway.clone(), port),
        (gateway, api),
        (host.to_string(), port),
        (host.to_string(), api),
        ("127.0.0.1".to_owned(), port),
        ("127.0.0.1".to_owned(), api),
        (two.to_string(), 7777),
        // Where clouds keep the credentials of their machines.
        ("169.254.169.254".to_owned(), 80),
    ];
    for (target, port) in targets {
        let reached = kiln.run(&[
            "exec",
            "one",
            "--",
            "sh",
            "-c",
            &format!("echo hi | nc -w 2 {target} {port} && echo REACHED"),
        ]);
        assert!(!reached.stdout.contains("REACHED"), "{target}:{port} from inside: {reached}");
    }
    assert!(careless.accept().is_err(), "a guest has reached a service of the host");
    // Its own address is its own, so the way that was refused is one that works.
    let own = format!(
        "(nc -l -p 7070 -e echo mine >/dev/null 2>&1 &) ; for i in $(seq 50); do \
         nc -w 1 {one} 7070 </dev/null | grep mine && exit 0; sleep 0.1; done; exit 1"
    );
    assert_eq!(kiln.ok(&["exec", "one", "--", "sh", "-c", &own]), "mine");
}

/// An address by which this host is known to others; of its loopback if it has none.
fn host_address() -> Ipv4Addr {
    let output = Command::new("hostname").arg("-I").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(Ipv4Addr::LOCALHOST)
}

#[test]
fn endless_output_costs_neither_the_daemon_nor_its_other_callers() {
    let kiln = daemon_with(&["loud", "quiet"]);
    let mut loud = kiln
        .command(&["exec", "loud", "--", "yes", "this goes on for ever"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It is read from once, then left: what it says must pile up nowhere.
    let mut some = [0; 4096];
    loud.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    let before = resident_kib(kiln.pid());
    for _ in 0..20 {
        assert_eq!(kiln.ok(&["exec", "quiet", "--", "echo", "heard"]), "heard");
    }
    let after = resident_kib(kiln.pid());
    assert!(after < before + 64 * 1024, "the daemon grew from {before} to {after} KiB");
    loud.kill().unwrap();
    loud.wait().unwrap();
    // The command ends with who has asked for it.
    eventually("the end of the abandoned command", || {
        let found = kiln.run(&["exec", "loud", "--", "sh", "-c", "pidof yes"]);
        (found.code != Some(0)).then_some(())
    });
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_guest_that_never_ends_in_order_is_ended() {
    let kiln = Daemon::start_with("stop_grace_ms = 500\n");
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "stubborn"]);
    kiln.ok(&[
        "exec", "stubborn", "--", "sh", "-c",
        "for i in 1 2 3; do (trap '' TERM INT HUP; while :; do sleep 100; done) >/dev/null 2>&1 & done",
    ]);
    kiln.ok(&["stop", "stubborn"]);
    assert_eq!(kiln.json(&["ps"])[0]["status"], "stopped");
}
