//! The files that the runtime shows in a sandbox, whatever the image has in their places.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::lab::{Lab, chain, create, privileged, sh, sh_as, spec};

#[test]
fn names_are_in_place() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let changes = lab.place.disk();
    lab.sandbox_of(spec(), changes.clone(), async |running| {
        assert_eq!(sh(running, "hostname; cat /etc/hostname").await.ok(), "workbench\nworkbench");
        let address = running.address.unwrap().to_string();
        let hosts = sh(running, "cat /etc/hosts").await.ok();
        let own = hosts.lines().find(|line| line.ends_with("workbench"));
        assert!(own.is_some_and(|line| line.starts_with(&address)), "{hosts}");
        assert!(hosts.contains("127.0.0.1"), "{hosts}");
        assert!(sh(running, "grep ^nameserver /etc/resolv.conf").await.code == 0);
        let owners = sh(running, "stat -c '%U:%G %a' /etc/hosts /etc/hostname /etc/resolv.conf");
        assert_eq!(owners.await.ok(), "root:root 644\nroot:root 644\nroot:root 644");
        assert_eq!(
            sh(running, "echo 10.0.0.1 x >> /etc/hosts; tail -1 /etc/hosts").await.ok(),
            "10.0.0.1 x"
        );
        let denied = sh_as(running, Some("nobody"), "echo x >> /etc/hosts").await;
        assert_ne!(denied.code, 0, "{denied:?}");
    });
    let left: Vec<_> = walk(&changes.changes());
    assert!(!left.iter().any(|path| path.starts_with("etc")), "the upper has {left:?}");
}

#[test]
fn files_of_the_runtime_do_not_grow_without_bound() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.sandbox(async |running| {
        let fill = sh(running, "head -c 8m /dev/zero > /etc/hosts").await;
        assert_ne!(fill.code, 0, "{fill:?}");
        assert_ne!(sh(running, "head -c 8m /dev/zero > /dev/file").await.code, 0);
    });
}

#[test]
fn links_in_the_image_do_not_lead_out() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let outside = lab.place.path().join("outside");
    fs::write(&outside, "the host's\n").unwrap();
    let up = "../".repeat(20);
    let cases = [
        ("dangling", "/nowhere/at/all".to_owned()),
        ("to systemd's place", "../run/systemd/resolve/stub-resolv.conf".to_owned()),
        ("absolute to the host", outside.to_str().unwrap().to_owned()),
        ("relative to the host", format!("{up}{}", outside.to_str().unwrap())),
        ("through the kernel's links", "/proc/self/root/etc/passwd".to_owned()),
        ("to a file of the image", "/etc/passwd".to_owned()),
        ("to itself", "resolv.conf".to_owned()),
        ("to a directory", "/usr".to_owned()),
    ];
    for (name, target) in cases {
        let layer = lab.place.path().join(format!("layer {name}"));
        fs::create_dir_all(layer.join("etc")).unwrap();
        for file in ["resolv.conf", "hosts", "hostname"] {
            symlink(&target, layer.join("etc").join(file)).unwrap();
        }
        let disk = lab.place.disk().with_layer(&layer);
        lab.sandbox_of(spec(), disk.clone(), async |running| {
            let shown =
                sh(running, "grep -c ^nameserver /etc/resolv.conf; cat /etc/hostname").await;
            assert_eq!(shown.ok(), "1\nworkbench", "{name}");
            assert_eq!(
                sh(running, "head -1 /etc/passwd | cut -d: -f1").await.ok(),
                "root",
                "{name}"
            );
            let written = sh(running, "echo x > /etc/resolv.conf && cat /etc/resolv.conf").await;
            assert_eq!(written.ok(), "x", "{name}");
        });
        assert_eq!(fs::read_to_string(&outside).unwrap(), "the host's\n", "{name}");
        let left = walk(&disk.changes());
        assert!(left.is_empty(), "{name}: the upper has {left:?}");
    }
}

#[test]
fn a_linked_directory_does_not_lead_out() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let outside = lab.place.path().join("outside");
    fs::create_dir_all(outside.join("etc")).unwrap();
    for file in ["hosts", "hostname", "resolv.conf"] {
        fs::write(outside.join("etc").join(file), "the host's\n").unwrap();
    }
    // The image's /etc is a link to where the host has a directory, and the image has not.
    let layer = lab.place.path().join("layer");
    fs::create_dir_all(&layer).unwrap();
    symlink(outside.join("etc"), layer.join("etc")).unwrap();
    let disk = lab.place.disk().with_layer(&layer);
    lab.sandbox_of(spec(), disk, async |running| {
        assert_eq!(sh(running, "echo works").await.ok(), "works");
        assert_ne!(sh(running, "cat /etc/hosts").await.code, 0);
    });
    assert_eq!(fs::read_to_string(outside.join("etc/hosts")).unwrap(), "the host's\n");
}

#[test]
fn missing_places_are_left_out() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let layer = lab.place.path().join("layer");
    fs::create_dir_all(layer.join("etc")).unwrap();
    fs::create_dir_all(layer.join("usr/sbin")).unwrap();
    for file in ["etc/resolv.conf", "etc/hosts", "usr/sbin/agent"] {
        whiteout(&layer.join(file));
    }
    let disk = lab.place.disk().with_layer(&layer);
    lab.sandbox_of(spec(), disk.clone(), async |running| {
        let files =
            sh(running, "ls /etc/hosts /etc/resolv.conf /sbin/agent 2>/dev/null; true").await;
        assert_eq!(files.ok(), "");
        assert_eq!(sh(running, "cat /etc/hostname").await.ok(), "workbench");
    });
    assert_eq!(walk(&disk.changes()), Vec::<String>::new());
}

#[test]
fn the_agent_is_shown_and_safe() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.sandbox(async |running| {
        let shown = "stat -c '%U:%G %a' /sbin/agent && test -s /sbin/agent && cmp /sbin/agent /usr/sbin/agent";
        assert_eq!(sh(running, shown).await.ok(), "root:root 755");
        for script in [
            "echo > /sbin/agent",
            "rm -f /sbin/agent",
            "chmod 777 /sbin/agent",
            "mv /sbin/agent /sbin/other",
            "echo > /proc/1/exe",
            "chmod 777 /proc/1/exe",
            "ln /sbin/agent /sbin/other",
        ] {
            let denied = sh(running, script).await;
            assert_ne!(denied.code, 0, "{script}: {denied:?}");
        }
        // A program of the sandbox is at work; its file on the host is what it was.
        running.agent.ping().await.unwrap();
    });
}

#[test]
fn an_image_with_a_real_sbin_keeps_it() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    // Opaque by being a file system of its own kind: a directory in place of the link.
    let layer = lab.place.path().join("layer");
    fs::create_dir_all(layer.join("sbin")).unwrap();
    fs::write(layer.join("sbin/tool"), "").unwrap();
    fs::write(layer.join("sbin/agent"), "the image's").unwrap();
    let disk = lab.place.disk().with_layer(&layer);
    lab.sandbox_of(spec(), disk, async |running| {
        let script = "ls /sbin && cmp -s /sbin/agent /proc/1/exe && echo same";
        assert_eq!(sh(running, script).await.ok(), "agent\ntool\nsame");
    });
}

#[test]
fn the_ca_bundle_is_shown() {
    if !privileged() {
        return;
    }
    let bundle = tempfile::NamedTempFile::new().unwrap();
    fs::write(bundle.path(), "certificates\n").unwrap();
    let path = bundle.path().to_owned();
    let lab = Lab::with(|config| config.ca_bundle = Some(path));
    lab.sandbox(async |running| {
        let script = format!("cat {0} && stat -c %U {0}", kiln_runtime::native::CA_BUNDLE);
        assert_eq!(sh(running, &script).await.ok(), "certificates\nroot");
        let script = format!("echo x > {}", kiln_runtime::native::CA_BUNDLE);
        assert_ne!(sh(running, &script).await.code, 0);
    });
    assert_eq!(fs::read_to_string(bundle.path()).unwrap(), "certificates\n");
    // An update of the host reaches the next sandbox.
    let draft = tempfile::NamedTempFile::new().unwrap();
    fs::write(draft.path(), "newer certificates\n").unwrap();
    draft.persist(bundle.path()).unwrap();
    lab.sandbox(async |running| {
        let script = format!("cat {}", kiln_runtime::native::CA_BUNDLE);
        assert_eq!(sh(running, &script).await.ok(), "newer certificates");
    });
}

#[test]
fn what_is_no_ca_bundle_is_refused_by_name() {
    if !privileged() {
        return;
    }
    let place = super::lab::Place::new();
    let path = place.path().join("bundle");
    let given = path.clone();
    let lab = Lab::at(place, |config| config.ca_bundle = Some(given));
    let refused = |wanted: &str| {
        let created = create(&lab.runtime, spec(), lab.place.disk());
        let text = chain(&lab.tokio.block_on(created).unwrap_err());
        assert!(text.contains(wanted), "{text}");
    };
    refused("bundle: No such file");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    refused("bundle: it is not a regular file");
    fs::remove_file(&path).unwrap();
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    refused("File too large");
    fs::write(&path, "certificates\n").unwrap();
    lab.sandbox(async |running| {
        let script = format!("cat {}", kiln_runtime::native::CA_BUNDLE);
        assert_eq!(sh(running, &script).await.ok(), "certificates");
    });
    super::refusals::assert_nothing_runs(&lab);
}

/// As overlayfs marks what a layer has removed.
fn whiteout(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).unwrap();
}

/// The files below a directory, but for those that every sandbox makes.
fn walk(top: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else {
                let path = entry.path();
                found.push(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}
