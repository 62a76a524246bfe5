//! The mounts of a sandbox.

use std::fs;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::lab::{Lab, Place, privileged, sh, sh_as, spec};

#[test]
fn a_device_node_of_a_layer_is_dead() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let layer = lab.place.path().join("layer");
    fs::create_dir_all(layer.join("dev")).unwrap();
    for path in ["zero", "dev/zero", "dev/vda"] {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, layer.join(path), FileType::CharacterDevice, mode, makedev(1, 5)).unwrap();
    }
    let disk = lab.place.disk().with_layer(&layer);
    lab.sandbox_of(spec(), disk, async |running| {
        let read = sh(running, "head -c 1 /zero").await;
        assert!(read.code != 0 && read.err.contains("Permission denied"), "{read:?}");
        let remount = sh(running, "mount -o remount,bind,dev /").await;
        assert_ne!(remount.code, 0, "{remount:?}");
        // The kernel refuses as well, without the filter and with all capabilities in the sandbox.
        let pid = running.pid.to_string();
        let enter = ["-t", &pid, "-U", "-m", "-S", "0", "-G", "0"];
        let forced = Command::new("nsenter")
            .args(enter)
            .args(["mount", "-o", "remount,bind,dev", "/"])
            .output()
            .unwrap();
        assert!(!forced.status.success(), "{forced:?}");
        let able = Command::new("nsenter")
            .args(enter)
            .args(["mount", "-t", "tmpfs", "none", "/mnt"])
            .output()
            .unwrap();
        assert!(able.status.success(), "the check above proves nothing: {able:?}");
        assert_ne!(sh(running, "head -c 1 /zero").await.code, 0);
        assert_eq!(sh(running, "head -c 1 /dev/zero | od -An -tx1").await.ok(), " 00");
        assert_eq!(sh(running, "ls /dev/vda 2>/dev/null; true").await.ok(), "");
    });
}

#[test]
fn devices_are_complete() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.sandbox(async |running| {
        let list = sh(running, "ls /dev | tr '\\n' ' '").await.ok();
        assert_eq!(
            list,
            "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
        );
        assert_eq!(
            sh(running, "stat -c '%U %a' /dev /dev/null /dev/shm").await.ok(),
            "root 755\nroot 666\nroot 1777"
        );
        let user = "echo x > /dev/null && head -c 2 /dev/zero | wc -c && echo y > /dev/shm/y && \
            echo z | cat /dev/stdin && head -c 1 /dev/urandom | wc -c";
        assert_eq!(sh_as(running, Some("nobody"), user).await.ok(), "2\nz\n1");
        assert_eq!(sh(running, "echo e > /dev/stderr").await.err, "e");
        assert_ne!(sh(running, "echo x > /dev/full").await.code, 0);
        // A terminal: the master by ptmx, the slave by devpts.
        let terminal = "script -qec 'tty; stat -c %G $(tty)' /dev/null | tr -d '\\r'";
        assert_eq!(sh(running, terminal).await.ok(), "/dev/pts/0\ntty");
        let filled = sh(running, "head -c 300m /dev/zero > /dev/shm/big").await;
        assert_ne!(filled.code, 0, "/dev/shm is bounded by half the memory");
    });
}

#[test]
fn the_kernels_files_are_masked() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.sandbox(async |running| {
        let files = "interrupts kcore keys kmsg latency_stats sched_debug timer_list timer_stats \
            vmallocinfo";
        for name in files.split(' ') {
            let path = format!("/proc/{name}");
            let read = sh(running, &format!("test ! -e {path} || head -c 10 {path} | wc -c")).await;
            assert!(["", "0"].contains(&read.ok().as_str()), "{path}");
        }
        let directories = "/proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/kernel/debug \
            /sys/devices/virtual/powercap /sys/devices/system/cpu/cpu*/thermal_throttle";
        let list =
            sh(running, &format!("ls -A {directories} 2>/dev/null | grep -v :$; true")).await;
        assert_eq!(list.ok().trim(), "");
        for script in [
            "echo 1 > /proc/sys/kernel/hung_task_panic",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            "echo x > /proc/sysrq-trigger",
            "echo 1 > /proc/irq/0/smp_affinity",
            "echo 0 > /sys/class/net/lo/mtu",
            "mount -o remount,rw /sys",
        ] {
            let denied = sh(running, script).await;
            assert_ne!(denied.code, 0, "{script}: {denied:?}");
        }
        assert_eq!(sh(running, "ls /sys/class/net | tr '\\n' ' '").await.ok(), "eth0 lo");
        assert_eq!(sh(running, "ps ax 2>/dev/null | wc -l; ls -d /proc/1").await.code, 0);
    });
}

#[test]
fn nothing_of_the_host_is_to_be_seen() {
    if !privileged() {
        return;
    }
    let place = Place::new();
    let bundle = place.path().join("bundle.crt");
    fs::write(&bundle, "certificates\n").unwrap();
    let lab = Lab::at(place, |config| config.ca_bundle = Some(bundle));
    lab.sandbox(async |running| {
        let mounts = sh(running, "cat /proc/self/mountinfo").await.ok();
        assert!(mounts.contains(kiln_runtime::native::CA_BUNDLE), "{mounts}");
        let here = lab.place.path().to_str().unwrap();
        assert!(!mounts.contains(here), "{mounts}");
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let point = fields[4];
            assert!(!point.starts_with("/files") && !point.starts_with("/root"), "{line}");
            let kind = line.split(" - ").nth(1).unwrap();
            let known = ["overlay", "proc", "sysfs", "tmpfs", "devpts", "mqueue"];
            let ours = known.iter().any(|name| kind.starts_with(name));
            assert!(ours, "{line}");
            // The directory of the host that is shown: its root, or the launcher's own files.
            let (root, options) = (fields[3], fields[5]);
            let plain = root.trim_start_matches('/');
            assert!(!plain.contains('/') && !plain.contains("bundle"), "{line}");
            let has = |flag: &str| options.split(',').any(|option| option == flag);
            let devices = point.starts_with("/dev/") || point == "/dev";
            // The null device over hidden files has to be a device.
            let hidden = root == "/null";
            assert!(has("nodev") || devices || hidden, "{line}");
            assert!(has("nosuid") || point == "/", "{line}");
            let programs = devices || hidden || point == "/" || root == "/agent";
            assert!(
                has("noexec") || programs || point == kiln_runtime::native::CA_BUNDLE,
                "{line}"
            );
        }
        let groups = sh(running, "cut -d: -f3 /proc/1/cgroup | sort -u").await.ok();
        assert!(groups.lines().all(|path| path == "/" || path.is_empty()), "{groups}");
    });
}
