//! Bad input gets an error that names it, and leaves nothing.

mod commands;

use std::fs;

use serde_json::json;

use crate::daemon::Daemon;
use crate::fixture::{busybox, template};

#[test]
fn templates_are_checked_before_anything_runs() {
    let kiln = Daemon::start();
    let base = busybox();
    let cases = [
        (json!("text"), "template"),
        (json!({ "name": "x" }), "base_image"),
        (json!({ "name": "x", "base_image": base, "colour": 1 }), "colour"),
        (json!({ "name": "X Y", "base_image": base }), "X Y"),
        (json!({ "name": "x", "base_image": "" }), "base_image"),
        (json!({ "name": "x", "base_image": "no such base" }), "no such base"),
        (json!({ "name": "x", "base_image": base, "apt_packages": ["-y"] }), "-y"),
        (json!({ "name": "x", "base_image": base, "apt_packages": ["a b; rm"] }), "a b; rm"),
        (json!({ "name": "x", "base_image": base, "env": { "A=B": "c" } }), "A=B"),
        (json!({ "name": "x", "base_image": base, "env": { "A": "nul\u{0}" } }), "env"),
        (json!({ "name": "x", "base_image": base, "vcpu": 0 }), "vcpu"),
        (json!({ "name": "x", "base_image": base, "memory_mib": -1 }), "memory_mib"),
    ];
    for (value, named) in cases {
        let file = kiln.path("bad.json");
        fs::write(&file, value.to_string()).unwrap();
        let outcome = kiln.run(&["build", file.to_str().unwrap()]);
        assert_eq!(outcome.code, Some(1), "{value}: {outcome}");
        assert!(outcome.stderr.contains(named), "no {named:?}: {value}: {outcome}");
    }
    assert_eq!(kiln.json(&["images"]), json!([]));
    let missing = kiln.run(&["build", "no-such-file.json"]);
    assert!(missing.stderr.contains("no-such-file.json"), "{missing}");
}

#[test]
fn what_is_not_there_is_named() {
    let kiln = Daemon::start();
    for (arguments, named) in [
        (&["create", "no-such-image"][..], "no-such-image"),
        (&["exec", "no-such-box", "--", "true"], "no-such-box"),
        (&["rm", "no-such-box"], "no-such-box"),
        (&["stop", "no-such-box"], "no-such-box"),
        (&["rmi", "no-such-image"], "no-such-image"),
        (&["snapshot", "no-such-box", "s"], "no-such-box"),
        (&["snapshots", "rm", "no-such-snapshot"], "no-such-snapshot"),
        (&["logs", "bld_00000000000000000000000000000000"], "bld_0000"),
        (&["logs", "nonsense"], "nonsense"),
        (&["create", "Bad Name"], "Bad Name"),
    ] {
        let outcome = kiln.run(arguments);
        assert!(matches!(outcome.code, Some(1 | 125)), "{outcome}");
        assert!(outcome.stderr.contains(named), "{outcome}");
    }
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let kiln = Daemon::start();
    let second = std::process::Command::new(crate::daemon::KILN)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(kiln.data())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&second.stderr);
    assert!(errors.contains(&kiln.pid().to_string()), "{errors}");
    assert_eq!(kiln.json(&["ps"]), json!([]));
}

#[test]
fn without_a_daemon_the_way_out_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(crate::daemon::KILN)
        .args(["ps", "--host"])
        .arg(directory.path().join("no.sock"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("no.sock") && errors.contains("kiln serve"), "{errors}");
}

#[test]
fn the_http_address_needs_the_key() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    let over_http = |key: &str| {
        kiln.command(&["--host", kiln.url(), "--api-key", key, "images", "--json"])
            .output()
            .unwrap()
    };
    let right = over_http(&kiln.api_key());
    assert!(right.status.success(), "{}", String::from_utf8_lossy(&right.stderr));
    let wrong = over_http("kiln_wrong");
    assert_eq!(wrong.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&wrong.stderr).to_lowercase();
    assert!(errors.contains("api key"), "{errors}");
}
