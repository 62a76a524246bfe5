//! How a daemon ends: what is under way comes to its end or is told, and a second signal hurries it.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::daemon::{Daemon, eventually, signal};
use crate::fixture::{busybox, template};

fn with_box(config: &str) -> Daemon {
    let kiln = Daemon::start_with(config);
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "b"]);
    kiln
}

/// A command that has begun: its first output was seen in the sandbox.
fn begun(kiln: &Daemon, script: &str) -> std::process::Child {
    let script = format!("touch /begun; {script}");
    let child = kiln
        .command(&["exec", "b", "--", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the command begins", || {
        (kiln.run(&["exec", "b", "--", "test", "-e", "/begun"]).code == Some(0)).then_some(())
    });
    child
}

#[test]
fn a_stream_in_flight_is_told_that_the_daemon_ends() {
    let mut kiln = with_box("");
    let child = begun(&kiln, "echo said; sleep 600");
    kiln.terminate();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{errors}");
    assert!(errors.contains("shutting down") && errors.contains("run it again"), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "said\n", "what it said before is kept");
    // The sandbox runs on, and the command with nobody to hear it is gone.
    kiln.serve();
    let left = kiln.ok(&["exec", "b", "--", "sh", "-c", "ps | grep -c '[s]leep 600' || true"]);
    assert_eq!(left, "0");
}

#[test]
fn a_buffered_command_comes_to_its_end() {
    let mut kiln = with_box("");
    let mut child = kiln
        .command(&["exec", "b", "--json", "--", "sh", "-c", "touch /begun; sleep 2; echo done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the command begins", || {
        (kiln.run(&["exec", "b", "--", "test", "-e", "/begun"]).code == Some(0)).then_some(())
    });
    kiln.terminate();
    assert!(child.wait().unwrap().success());
    let result: Value = serde_json::from_reader(child.stdout.take().unwrap()).unwrap();
    assert_eq!((&result["exit_code"], &result["stdout"]), (&json!(0), &json!("done\n")));
}

/// Starts a build whose one step takes that long; gives its id.
fn building(kiln: &Daemon, name: &str, seconds: u32) -> String {
    let script = format!("touch /begun; sleep {seconds}");
    let file = kiln.path(format!("{name}.json"));
    std::fs::write(&file, template(name, &busybox(), &[&script]).to_string()).unwrap();
    // Its client may go away: the build goes on by itself.
    let mut client = kiln.command(&["build", file.to_str().unwrap()]).stderr(Stdio::null()).spawn();
    let id = eventually("the build runs its step", || {
        let builds = kiln.json(&["builds"]);
        let build = builds.as_array()?.iter().find(|build| {
            build["status"] == "running"
                && build["name"].as_str().is_some_and(|found| found.starts_with(name))
        })?;
        let id = build["id"].as_str()?.to_owned();
        (build["steps_total"] != 0).then_some(id)
    });
    let client = client.as_mut().unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    id
}

#[test]
fn a_build_that_is_cut_off_is_marked_and_leaves_nothing() {
    let mut kiln = Daemon::start();
    let id = building(&kiln, "late", 600);
    kiln.terminate();
    kiln.serve();
    let builds = kiln.json(&["builds"]);
    let build = builds.as_array().unwrap().iter().find(|build| build["id"] == *id).unwrap();
    assert_eq!(build["status"], "failed", "{build}");
    assert_eq!(build["failure"]["message"], "the daemon was shut down", "{build}");
    assert!(!kiln.json(&["images"]).to_string().contains("late:latest"));
    let uppers = std::fs::read_dir(kiln.data().join("uppers")).map_or(0, Iterator::count);
    assert_eq!(uppers, 0, "the build left a disk");
    // Its log ends as its row does.
    assert!(kiln.ok(&["logs", &id, "--json"]).contains("the daemon was shut down"));
}

#[test]
fn a_second_signal_hurries_the_end() {
    // Without the second one, the daemon waits for the command that is asked for as a whole.
    let mut kiln = with_box("drain_ms = 600000\n");
    let mut child = kiln
        .command(&["exec", "b", "--json", "--", "sh", "-c", "touch /begun; sleep 600"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the command begins", || {
        (kiln.run(&["exec", "b", "--", "test", "-e", "/begun"]).code == Some(0)).then_some(())
    });
    signal(kiln.pid(), "TERM");
    eventually("the first signal is heeded", || kiln.log().contains("shutting down").then_some(()));
    kiln.terminate();
    assert!(kiln.log().contains("a second signal"), "{}", kiln.log());
    assert_eq!(child.wait().unwrap().code(), Some(125), "the command's end is not made up");
    kiln.serve();
    assert_eq!(kiln.ok(&["exec", "b", "--", "echo", "still here"]), "still here");
}

#[test]
fn a_second_daemon_changes_nothing_of_the_first() {
    let kiln = with_box("");
    let before = std::fs::read_to_string(kiln.data().join("run/address")).unwrap();
    let second = std::process::Command::new(crate::daemon::KILN)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(kiln.data())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stdout.is_empty(), "it says that it is ready");
    let errors = String::from_utf8_lossy(&second.stderr);
    let named = [kiln.pid().to_string(), kiln.data().display().to_string()];
    assert!(named.iter().all(|part| errors.contains(part)), "{errors}");
    assert_eq!(std::fs::read_to_string(kiln.data().join("run/address")).unwrap(), before);
    assert_eq!(kiln.ok(&["exec", "b", "--", "echo", "still here"]), "still here");
}
