//! What a process in a sandbox finds around it.

use serde_json::json;

use crate::daemon::Daemon;
use crate::fixture::{busybox, dangling, template};

/// Characters that a shell, a file format or an argument list could trip over.
const VALUES: [(&str, &str); 7] = [
    ("PLAIN", "value"),
    ("SPACES", "  two  words "),
    ("QUOTES", "it's \"quoted\" `here` \\ there"),
    ("LINES", "first\nsecond\n"),
    ("EXPANDS", "$HOME ${PATH} $(id) %s"),
    ("EQUALS", "a=b=c"),
    ("UNICODE", "žluťoučký 🔥"),
];

#[test]
fn s1_7_env_reaches_every_later_step_and_session() {
    let kiln = Daemon::start();
    let env: serde_json::Map<_, _> =
        VALUES.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let names = VALUES.map(|(name, _)| name).join(" ");
    let show = format!("for name in {names}; do eval \"printf '<%s>\\n' \\\"\\$$name\\\"\"; done");
    kiln.build(
        "env",
        &json!({
            "name": "env",
            "base_image": busybox(),
            "env": env,
            "setup_commands": [format!("({show}) > /seen-by-the-step")],
        }),
    );
    let expected: Vec<_> = VALUES.iter().map(|(_, value)| format!("<{value}>")).collect();
    let expected = expected.join("\n");
    assert_eq!(kiln.ok(&["run", "env", "--", "cat", "/seen-by-the-step"]), expected);
    kiln.ok(&["create", "env", "--name", "e", "-e", "OWN=of the sandbox", "-e", "PLAIN=other"]);
    let session = |script: &str| kiln.ok(&["exec", "e", "--", "sh", "-c", script]);
    assert_eq!(session(&show), expected.replacen("value", "other", 1));
    assert_eq!(session("echo $OWN"), "of the sandbox");
    kiln.ok(&["stop", "e"]);
    kiln.ok(&["start", "e"]);
    assert_eq!(session("echo $OWN $PLAIN"), "of the sandbox other");
    let once = kiln.ok(&["exec", "-e", "PLAIN=once", "e", "--", "sh", "-c", "echo $PLAIN"]);
    assert_eq!(once, "once");
    assert_eq!(session("tr '\\0' '\\n' < /proc/1/environ | grep ^OWN="), "OWN=of the sandbox");
}

#[test]
fn s4_8_agent_and_workspace() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "s"]);
    let session = |script: &str| kiln.run(&["exec", "s", "--", "sh", "-c", script]);
    assert_eq!(session("pwd; test -d /workspace && echo there").stdout, "/workspace\nthere\n");
    assert_eq!(session("test -x /sbin/agent && echo agent").stdout, "agent\n");
    // It is the host's copy: what runs as PID 1 cannot be replaced from inside.
    for script in ["echo x > /sbin/agent", "rm -f /sbin/agent", "mv /bin/true /sbin/agent"] {
        assert_ne!(session(script).code, Some(0), "{script}");
    }
    assert_eq!(session("cat /proc/1/comm").stdout.trim(), "agent");
    assert_eq!(session("echo data > file; cat /workspace/file").stdout, "data\n");
}

#[test]
fn host_name_and_name_resolution_are_set_up() {
    let kiln = Daemon::start();
    kiln.build("plain", &template("plain", &busybox(), &[]));
    kiln.build("link", &template("link", &dangling(), &[]));
    for image in ["plain", "link"] {
        kiln.ok(&["create", image, "--name", image]);
        let session = |script: &str| kiln.ok(&["exec", image, "--", "sh", "-c", script]);
        assert!(session("cat /etc/resolv.conf").contains("nameserver"), "{image}");
        let host = session("hostname");
        assert!(session("cat /etc/hosts").contains(&host), "{image}");
        assert!(session("cat /etc/hosts").contains("localhost"), "{image}");
    }
}

#[test]
fn the_host_is_out_of_reach() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &[]));
    kiln.ok(&["create", "box", "--name", "s"]);
    let session = |script: &str| kiln.run(&["exec", "s", "--", "sh", "-c", script]);
    let data = kiln.data();
    let mounts = session("cat /proc/self/mountinfo").stdout;
    assert!(!mounts.contains(&*data.to_string_lossy()), "{mounts}");
    for script in [
        "mount -t tmpfs none /tmp",
        "mount -o remount,bind,dev /",
        "mknod /tmp/zero c 1 5",
        "unshare -U true",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        // Where the kernel has it, it is there and empty.
        "[ $(head -c 64 /proc/kcore | wc -c) -gt 0 ]",
        "chown 70000 /tmp",
        "dmesg",
    ] {
        let outcome = session(script);
        assert_ne!(outcome.code, Some(0), "`{script}` was let through: {outcome}");
    }
    let capabilities = session("grep CapEff /proc/self/status").stdout;
    assert!(!capabilities.contains("ffffffff"), "{capabilities}");
    assert_eq!(session("wc -l < /proc/self/uid_map").stdout.trim(), "1");
    // PID 1 holds nothing of the host: no descriptor but its own.
    let descriptors = session("ls -l /proc/1/fd").stdout;
    assert!(!descriptors.contains(&*data.to_string_lossy()), "{descriptors}");
}
