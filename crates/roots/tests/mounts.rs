//! Roots on the kernel of this host.

#![expect(clippy::print_stdout, reason = "a test says what it skips")]

#[path = "support/kernel.rs"]
mod support;

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;

use kiln_roots::{
    DirectoryUppers, ErofsMounts, LayerMounts as _, LayerSource, Roots, RootsError, UpperLimits,
    conformance,
};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat, unlinkat};
use support::{Userns, layer, probe};

const BASE: u32 = 700_000;

struct Fixture {
    dir: tempfile::TempDir,
    mounts: Arc<ErofsMounts>,
    roots: Roots,
    userns: Userns,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounts = Arc::new(ErofsMounts::new());
        let uppers = Arc::new(DirectoryUppers::open(&dir.path().join("uppers")).unwrap());
        let roots = Roots::new(dir.path(), mounts.clone(), uppers).unwrap();
        Self { dir, mounts, roots, userns: Userns::new(BASE) }
    }

    fn mount(&self, layers: &[LayerSource], upper: &str) -> Result<OwnedFd, RootsError> {
        self.roots.mount(layers, upper, self.userns.fd(), BASE, false)
    }
}

fn read(root: &OwnedFd, name: &str) -> String {
    let file = openat(root, name, OFlags::RDONLY, Mode::empty()).unwrap();
    let mut text = String::new();
    fs::File::from(file).read_to_string(&mut text).unwrap();
    text
}

/// A change that a host process may make although its own ids have no place in the mount.
fn chown(root: &OwnedFd, name: &str, id: u32) {
    let owner = Some(rustix::fs::Uid::from_raw(id));
    rustix::fs::chownat(root, name, owner, None, AtFlags::empty()).unwrap();
}

#[test]
fn layer_mounts_conform() {
    if !probe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layer = layer(dir.path(), "base", &[("hello", "world\n")]);
    conformance::layer_mounts::check(&ErofsMounts::new(), &layer);
}

#[test]
fn an_empty_image_is_the_skeleton() {
    if !probe() {
        return;
    }
    let fixture = Fixture::new();
    fixture.roots.uppers().create("s", UpperLimits::default()).unwrap();
    let root = fixture.mount(&[], "s").unwrap();
    for (name, mode) in [
        ("dev", 0o755),
        ("tmp", 0o1777),
        ("workspace", 0o755),
        ("sbin/agent", 0o755),
        ("usr/sbin/agent", 0o755),
        ("etc/resolv.conf", 0o644),
        ("run/kiln/ca.crt", 0o644),
    ] {
        let found = statat(&root, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        assert_eq!((found.st_uid, found.st_mode & 0o7777), (BASE, mode), "{name}");
    }
    let upper = fixture.roots.uppers().path("s").unwrap();
    assert_eq!(fs::read_dir(upper).unwrap().count(), 0, "mounting leaves no trace");
}

#[test]
fn layers_upper_and_ids() {
    if !probe() {
        return;
    }
    let fixture = Fixture::new();
    let base = layer(fixture.dir.path(), "base", &[("etc/name", "base\n"), ("gone", "x")]);
    let top = layer(fixture.dir.path(), "top", &[("etc/name", "top\n"), (".wh.gone", "")]);
    let uppers = fixture.roots.uppers().clone();
    uppers.create("one", UpperLimits::default()).unwrap();
    uppers.create("two", UpperLimits::default()).unwrap();

    let one = fixture.mount(&[base.clone(), top.clone()], "one").unwrap();
    assert_eq!(read(&one, "etc/name"), "top\n");
    assert!(statat(&one, "gone", AtFlags::empty()).is_err());
    assert_eq!(statat(&one, "etc/name", AtFlags::empty()).unwrap().st_uid, BASE);

    chown(&one, "etc/name", BASE + 42);
    unlinkat(&one, "etc/hosts", AtFlags::empty()).unwrap();
    // On disk: the ids that the sandbox sees, and a whiteout for what was removed.
    let upper = uppers.path("one").unwrap();
    assert_eq!(fs::metadata(upper.join("etc/name")).unwrap().uid(), 42);
    assert_eq!(fs::read_to_string(upper.join("etc/name")).unwrap(), "top\n");
    let whiteout = fs::symlink_metadata(upper.join("etc/hosts")).unwrap();
    assert_eq!(whiteout.rdev(), 0);
    assert_eq!(whiteout.permissions().mode() & 0o170_000, 0o020_000);

    // The other root has the same layers and sees nothing of it.
    let two = fixture.mount(&[base, top], "two").unwrap();
    assert_eq!(statat(&two, "etc/name", AtFlags::empty()).unwrap().st_uid, BASE);
    assert!(statat(&two, "etc/hosts", AtFlags::empty()).is_ok());
    assert_eq!(fixture.mounts.kept(), 2, "both roots share the layers' superblocks");

    // The upper outlives its mount.
    drop(one);
    let again = fixture.mount(&[], "one").unwrap();
    assert_eq!(statat(&again, "etc/name", AtFlags::empty()).unwrap().st_uid, BASE + 42);
}

#[test]
fn an_image_with_linked_sbin_keeps_its_programs() {
    if !probe() {
        return;
    }
    let fixture = Fixture::new();
    let image = layer(
        fixture.dir.path(),
        "merged",
        &[("usr/sbin/tool", "tool"), ("usr/bin/tool", "tool"), ("sbin@", "usr/sbin")],
    );
    fixture.roots.uppers().create("s", UpperLimits::default()).unwrap();
    let root = fixture.mount(&[image], "s").unwrap();
    assert_eq!(read(&root, "sbin/tool"), "tool");
    assert!(statat(&root, "sbin/agent", AtFlags::empty()).is_ok());
}

#[test]
fn a_volatile_upper_is_mounted_once() {
    if !probe() {
        return;
    }
    let fixture = Fixture::new();
    fixture.roots.uppers().create("step", UpperLimits::default()).unwrap();
    let mount = |volatile| fixture.roots.mount(&[], "step", fixture.userns.fd(), BASE, volatile);
    let root = mount(true).unwrap();
    chown(&root, "etc/hosts", BASE + 1);
    drop(root);
    let upper = fixture.roots.uppers().path("step").unwrap();
    assert_eq!(fs::metadata(upper.join("etc/hosts")).unwrap().uid(), 1);
    for volatile in [true, false] {
        let error = mount(volatile).unwrap_err();
        assert!(matches!(error, RootsError::VolatileUpper { .. }), "{error:?}");
    }
    assert!(fixture.roots.uppers().remove("step").unwrap());
}

#[test]
fn a_base_that_is_not_the_namespaces_is_an_error() {
    if !probe() {
        return;
    }
    let fixture = Fixture::new();
    fixture.roots.uppers().create("s", UpperLimits::default()).unwrap();
    // An owner without an id in the mapping cannot use the work directory: the kernel would mount
    // read-only and say nothing.
    let error = fixture.roots.mount(&[], "s", fixture.userns.fd(), 5, false).unwrap_err();
    assert!(
        matches!(
            error,
            RootsError::ReadOnly { .. } | RootsError::Overlay { .. } | RootsError::Probe { .. }
        ),
        "{error:?}"
    );
}

#[test]
fn errors_name_what_is_missing() {
    if !probe() {
        return;
    }
    let fixture = Fixture::new();
    let error = fixture.mount(&[], "none").unwrap_err();
    assert!(matches!(error, RootsError::NoUpper { .. }), "{error:?}");
    fixture.roots.uppers().create("s", UpperLimits::default()).unwrap();
    let bad = fixture.dir.path().join("bad-index");
    fs::write(&bad, vec![0; 4096]).unwrap();
    let layer = LayerSource { index: bad, devices: Vec::new() };
    let error = fixture.mount(&[layer], "s").unwrap_err();
    assert!(matches!(error, RootsError::Layer { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("bad-index") && text.contains("fsconfig(create)"), "{text}");
}

#[test]
fn a_replaced_index_is_mounted_anew() {
    if !probe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mounts = ErofsMounts::new();
    let source = layer(dir.path(), "l", &[("hello", "one\n")]);
    let first = mounts.mount(&source).unwrap();
    fs::remove_file(&source.index).unwrap();
    fs::remove_file(&source.devices[0]).unwrap();
    let source = layer(dir.path(), "l", &[("hello", "second\n")]);
    let second = mounts.mount(&source).unwrap();
    assert_eq!(
        (read(&first, "hello"), read(&second, "hello")),
        ("one\n".into(), "second\n".into())
    );
}
