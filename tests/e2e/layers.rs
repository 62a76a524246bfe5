//! The layer stack: base and template are never written (S4.6).

use std::fs::{self, File};
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::daemon::Daemon;
use crate::fixture::{busybox, template};

/// Every file under `directory` with its hash, by path.
fn hashes(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let mut hash = Sha256::new();
            let mut file = File::open(&path).unwrap();
            let mut buffer = vec![0; 1 << 20];
            loop {
                match io::Read::read(&mut file, &mut buffer).unwrap() {
                    0 => break,
                    count => hash.update(&buffer[..count]),
                }
            }
            found.push((path.display().to_string(), hash.finalize().to_vec()));
        }
    }
    found.sort();
    found
}

#[test]
fn s4_6_session_changes_touch_neither_base_nor_template() {
    let kiln = Daemon::start();
    kiln.build("box", &template("box", &busybox(), &["echo template > /etc/mine"]));
    let images = kiln.json(&["images"]);
    let layers =
        images.as_array().unwrap().iter().find(|image| {
            image["names"].as_array().unwrap().iter().any(|name| name == "box:latest")
        });
    assert_eq!(layers.unwrap()["layers"].as_array().unwrap().len(), 2, "{images}");
    let stored = || [hashes(&kiln.data().join("blobs")), hashes(&kiln.data().join("indexes"))];
    let before = stored();
    assert!(!before[0].is_empty() && !before[1].is_empty());

    kiln.ok(&["create", "box", "--name", "one"]);
    kiln.ok(&["create", "box", "--name", "two"]);
    let change = "echo changed > /etc/mine; rm -r /bin/vi /etc/passwd; echo x >> /bin/busybox; \
        chmod 777 /etc; find / -xdev -type f -exec touch {} + 2>/dev/null; true";
    kiln.ok(&["exec", "one", "--", "sh", "-c", change]);
    assert_eq!(kiln.ok(&["exec", "one", "--", "cat", "/etc/mine"]), "changed");
    assert_eq!(kiln.ok(&["exec", "two", "--", "cat", "/etc/mine"]), "template");
    assert_eq!(
        kiln.ok(&["exec", "two", "--", "sh", "-c", "stat -c %a /etc; test -L /bin/vi && echo y"]),
        "755\ny"
    );
    kiln.ok(&["rm", "-f", "one", "two"]);
    assert_eq!(stored(), before);
    assert_eq!(kiln.ok(&["run", "box", "--", "cat", "/etc/mine"]), "template");
}
