//! The suite for [`LayerMounts`].

use std::io::Read as _;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat, statat};

use crate::{LayerMounts, LayerSource, RootsError};

/// Runs the whole suite with a layer that holds a file `hello` with the content `world\n` of owner 0.
pub fn check(mounts: &dyn LayerMounts, layer: &LayerSource) {
    content(mounts, layer);
    independence(mounts, layer);
    missing(mounts);
}

/// A mount shows the layer, read-only and without devices.
pub fn content(mounts: &dyn LayerMounts, layer: &LayerSource) {
    let mount = mounts.mount(layer).expect("mount");
    assert_eq!(read(&mount, "hello"), "world\n");
    assert_eq!(statat(&mount, "hello", AtFlags::empty()).expect("stat").st_uid, 0);
    let flags = fstatvfs(&mount).expect("statvfs").f_flag;
    assert!(flags.contains(StatVfsMountFlags::RDONLY), "{flags:?}");
    let created = openat(&mount, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
    assert_eq!(created.expect_err("read-only"), rustix::io::Errno::ROFS);
}

/// Mounts of one layer are independent of each other and of `forget`.
pub fn independence(mounts: &dyn LayerMounts, layer: &LayerSource) {
    let first = mounts.mount(layer).expect("mount");
    let second = mounts.mount(layer).expect("mount");
    drop(first);
    assert_eq!(read(&second, "hello"), "world\n");
    mounts.forget(&layer.index);
    assert_eq!(read(&second, "hello"), "world\n");
    let third = mounts.mount(layer).expect("mount after forget");
    assert_eq!(read(&third, "hello"), "world\n");
}

/// What is not there is an error that names it.
pub fn missing(mounts: &dyn LayerMounts) {
    let layer = LayerSource { index: "/nonexistent/index".into(), devices: Vec::new() };
    let error = mounts.mount(&layer).expect_err("nothing is there");
    assert!(matches!(error, RootsError::Io { .. } | RootsError::Layer { .. }), "{error:?}");
    assert!(error.to_string().contains("/nonexistent/index"), "{error}");
}

fn read(mount: &OwnedFd, name: &str) -> String {
    let file = openat(mount, name, OFlags::RDONLY, Mode::empty()).expect("open");
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text).expect("read");
    text
}
