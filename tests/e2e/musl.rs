//! Guests without glibc (S0.9).

use crate::daemon::Daemon;
use crate::fixture::{busybox, musl, template};

#[test]
fn s0_9_musl_and_busybox_guests_work() {
    let kiln = Daemon::start();
    kiln.build("musl", &template("musl", &musl(), &["hello > /greeting"]));
    assert_eq!(kiln.ok(&["run", "musl", "--", "cat", "/greeting"]), "musl says hello to root");
    let user = kiln.ok(&["run", "musl", "-u", "ada", "--", "hello"]);
    assert_eq!(user, "musl says hello to ada");
    kiln.build("busybox", &template("busybox", &busybox(), &[]));
    kiln.ok(&["create", "busybox", "--name", "bare"]);
    kiln.ok(&["exec", "bare", "--", "sh", "-c", "echo kept > /kept"]);
    kiln.ok(&["stop", "bare"]);
    kiln.ok(&["start", "bare"]);
    assert_eq!(kiln.ok(&["exec", "bare", "--", "cat", "/kept"]), "kept");
}
