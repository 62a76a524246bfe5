//! The way out of a sandbox.

use std::time::Instant;

use kiln_runtime::SandboxSpec;

use super::lab::{Lab, privileged, sh, spec};

#[test]
fn a_sandbox_without_network_has_its_loopback_only() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let spec = SandboxSpec { network: false, ..spec() };
    lab.sandbox_of(spec, lab.place.disk(), async |running| {
        assert_eq!(running.address, None);
        assert_eq!(sh(running, "ls /sys/class/net").await.ok(), "lo");
        assert_eq!(sh(running, "cat /sys/class/net/lo/flags").await.ok(), "0x9");
    });
}

/// The whole path that users care about: names, addresses, HTTP, signatures, dpkg with its users,
/// triggers and capabilities.
#[test]
fn packages_can_be_installed() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.sandbox(async |running| {
        let script = "apt-get update -qq 2>&1 && apt-get install -y -qq --no-install-recommends \
            iputils-ping sudo 2>&1";
        let start = Instant::now();
        let output = sh(running, script).await.ok();
        println!("apt-get update and install took {:?}", start.elapsed());
        assert!(!output.contains("\nE: "), "{output}");
        assert_eq!(sh(running, "ping -c 1 -W 2 127.0.0.1 | grep -c 'bytes from'").await.ok(), "1");
        assert_eq!(sh(running, "useradd one && sudo -u one id -un").await.ok(), "one");
        let capability =
            "dpkg -L iputils-ping | grep -q bin/ping && getent passwd _apt | cut -d: -f1";
        assert_eq!(sh(running, capability).await.ok(), "_apt");
    });
}
