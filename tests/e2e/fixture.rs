//! Root file systems for the tests, made once and kept under `target/test-fixtures`.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

fn directory() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-fixtures");
    fs::create_dir_all(&target).unwrap();
    target.canonicalize().unwrap()
}

/// Makes `name` by `make`, unless it is there. Safe against other tests doing the same.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let path = directory().join(name);
    let lock = File::create(directory().join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !path.exists() {
        let new = directory().join(format!("{name}.new"));
        let _ = fs::remove_file(&new);
        make(&new);
        fs::rename(&new, &path).unwrap();
    }
    path
}

#[track_caller]
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
}

/// A Debian 12 root, made from the archive as Kiln itself would make it.
pub(crate) fn debian() -> PathBuf {
    once("bookworm-minbase.tar", |path| {
        run(Command::new("mmdebstrap")
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .args(["--quiet", "--format=tar", "--variant=minbase", "bookworm"])
            .arg(path));
    })
}

/// A root with nothing but a static busybox.
pub(crate) fn busybox() -> PathBuf {
    once("busybox.tar", |path| {
        let tree = tempfile::tempdir().unwrap();
        busybox_tree(tree.path());
        tar(tree.path(), path);
    })
}

/// A busybox root whose `/etc/resolv.conf` and `/etc/hosts` are symlinks that lead nowhere.
pub(crate) fn dangling() -> PathBuf {
    once("dangling.tar", |path| {
        let tree = tempfile::tempdir().unwrap();
        busybox_tree(tree.path());
        let etc = tree.path().join("etc");
        symlink("../run/nowhere/resolv.conf", etc.join("resolv.conf")).unwrap();
        symlink("/etc/no-such-hosts", etc.join("hosts")).unwrap();
        tar(tree.path(), path);
    })
}

/// A root whose only C library is musl, with one program that is linked to it.
pub(crate) fn musl() -> PathBuf {
    once("musl.tar", |path| {
        let tree = tempfile::tempdir().unwrap();
        busybox_tree(tree.path());
        let source = tree.path().join("hello.c");
        fs::write(
            &source,
            "#include <pwd.h>\n#include <stdio.h>\n#include <unistd.h>\n\
             int main(void) { struct passwd *p = getpwuid(getuid());\n\
             printf(\"musl says hello to %s\\n\", p ? p->pw_name : \"nobody\"); return 0; }\n",
        )
        .unwrap();
        run(Command::new("musl-gcc").arg("-o").arg(tree.path().join("bin/hello")).arg(&source));
        fs::remove_file(&source).unwrap();
        fs::create_dir(tree.path().join("lib")).unwrap();
        let library = ["/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.exists())
            .expect("the package musl has a loader");
        fs::copy(library, tree.path().join("lib").join(library.file_name().unwrap())).unwrap();
        tar(tree.path(), path);
    })
}

fn busybox_tree(root: &Path) {
    for directory in ["bin", "etc", "root", "tmp"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/tmp:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nada:x:1000:\nkiln:x:2000:ada\n").unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

fn tar(tree: &Path, path: &Path) {
    run(Command::new("tar")
        .args(["--sort=name", "--mtime=@1700000000", "--owner=0", "--group=0", "--numeric-owner"])
        .arg("-C")
        .arg(tree)
        .arg("-cf")
        .arg(path)
        .arg("."));
}

/// A template on a root file system.
pub(crate) fn template(name: &str, base: &Path, commands: &[&str]) -> Value {
    json!({
        "name": name,
        "base_image": base,
        "setup_commands": commands,
    })
}
