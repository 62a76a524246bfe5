//! What a sandbox sees, and what it may do.

use std::time::Duration;

use super::{Subject, create, output, sh, spec, with_sandbox};

pub(super) async fn run(subject: &dyn Subject) {
    the_kernels_files_are_there(subject).await;
    privileges_of_the_host_are_missing(subject).await;
    sandboxes_do_not_see_each_other(subject).await;
}

async fn the_kernels_files_are_there(subject: &dyn Subject) {
    with_sandbox(subject, spec(), async |running| {
        let script = "test -r /proc/self/status && test -d /sys/class && test -c /dev/null \
            && echo x > /dev/null && head -c 4 /dev/urandom | wc -c && test -d /dev/pts \
            && test -w /dev/shm && ls -A /dev/shm | wc -l && test -x /sbin/agent";
        assert_eq!(output(running, script).await, "4\n0");
        let interfaces = "sed -n 's/^ *\\([^ ]*\\):.*/\\1/p' /proc/net/dev";
        assert_eq!(output(running, interfaces).await, "lo");
        if subject.own_kernel() {
            println!("SKIP /sys/class/net: what /sys shows is up to the sandbox's own kernel");
        } else {
            assert_eq!(output(running, "ls /sys/class/net").await, "lo");
        }
    })
    .await;
}

async fn privileges_of_the_host_are_missing(subject: &dyn Subject) {
    with_sandbox(subject, spec(), async |running| {
        let refused = [
            "mount -t tmpfs none /mnt",
            "mount -o remount,bind,dev /",
            "umount /proc",
            "mknod /tmp/null c 1 3",
            "echo 1 > /proc/sys/kernel/panic",
            "echo b > /proc/sysrq-trigger",
            "unshare --user true",
            "unshare --mount true",
            "test -s /proc/kcore",
            "echo > /sbin/agent",
            "rm /sbin/agent",
            "hostname other",
        ];
        // What harms nobody where the kernel is the sandbox's own.
        let harmless = ["unshare --user true"];
        for script in refused {
            if subject.own_kernel() && harmless.contains(&script) {
                println!("SKIP `{script}`: it concerns only the sandbox's own kernel");
                continue;
            }
            let (code, text) = sh(running, None, script).await;
            assert_ne!(code, 0, "`{script}` is allowed: {text}");
        }
    })
    .await;
}

async fn sandboxes_do_not_see_each_other(subject: &dyn Subject) {
    let (one, other) = (spec(), spec());
    let disks = [subject.disk(), subject.disk()];
    let first = create(subject, one.clone(), &*disks[0]).await.expect("the first starts");
    let second = create(subject, other.clone(), &*disks[1]).await.expect("the second starts");
    output(&first, "echo secret > /tmp/secret; sleep 1000 >/dev/null 2>&1 &").await;
    output(&first, "echo secret > /dev/shm/secret; echo secret >> /etc/hosts").await;
    let look = "cat /tmp/secret /dev/shm/secret 2>/dev/null; grep secret /etc/hosts; \
        grep -l sleep /proc/[0-9]*/comm 2>/dev/null; true";
    assert_eq!(output(&second, look).await, "");
    for id in [one.id, other.id] {
        subject.runtime().stop(id, Duration::ZERO).await.expect("it stops");
    }
}
