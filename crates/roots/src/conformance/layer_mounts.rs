//! The suite for [`LayerMounts`].
//!
//! [`check`] is what every implementation must do with any layer; [`cases::all`] are layers with all that
//! a layer can have, of which two implementations must give the same [`listing::listing`].

pub mod cases;
pub mod listing;

use std::io::Read as _;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat, statat};

use crate::{LayerMounts, LayerSource, RootsError};

/// Runs the whole suite with a layer that holds a file `hello` with the content `world\n` of owner 0.
pub fn check(mounts: &dyn LayerMounts, layer: &LayerSource) {
    content(mounts, layer);
    independence(mounts, layer);
    keeping(mounts, layer);
    missing(mounts);
}

/// A mount shows the layer, read-only and without devices.
pub fn content(mounts: &dyn LayerMounts, layer: &LayerSource) {
    let mount = mounts.mount(layer).expect("mount");
    assert_eq!(read(&mount, "hello"), "world\n");
    assert_eq!(statat(&mount, "hello", AtFlags::empty()).expect("stat").st_uid, 0);
    let flags = fstatvfs(&mount).expect("statvfs").f_flag;
    assert!(flags.contains(StatVfsMountFlags::RDONLY), "{flags:?}");
    assert!(flags.contains(StatVfsMountFlags::NODEV), "{flags:?}");
    let created = openat(&mount, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
    assert_eq!(created.expect_err("read-only"), rustix::io::Errno::ROFS);
    let written = openat(&mount, "hello", OFlags::WRONLY, Mode::empty());
    assert_eq!(written.expect_err("read-only"), rustix::io::Errno::ROFS);
}

/// Mounts of one layer are independent of each other, and a layer that was forgotten is there again.
pub fn independence(mounts: &dyn LayerMounts, layer: &LayerSource) {
    let first = mounts.mount(layer).expect("mount");
    let second = mounts.mount(layer).expect("mount");
    drop(first);
    assert_eq!(read(&second, "hello"), "world\n");
    drop(second);
    mounts.forget(&layer.index).expect("forget");
    mounts.forget(&layer.index).expect("forgetting what is not kept is no error");
    let third = mounts.mount(layer).expect("mount after forget");
    assert_eq!(read(&third, "hello"), "world\n");
}

/// What is kept is sound, and goes when it is to go.
pub fn keeping(mounts: &dyn LayerMounts, layer: &LayerSource) {
    mounts.prepare(layer).expect("prepare");
    mounts.prepare(layer).expect("preparing twice is no error");
    assert_eq!(mounts.verify(layer).expect("verify"), Vec::new());
    let before = mounts.bytes(&layer.index).expect("bytes");
    // A sweep leaves what is known and used.
    let index = std::slice::from_ref(&layer.index);
    assert_eq!(mounts.sweep(index, index).expect("sweep"), 0);
    assert_eq!(mounts.bytes(&layer.index).expect("bytes"), before);
    mounts.forget(&layer.index).expect("forget");
    assert_eq!(mounts.bytes(&layer.index).expect("bytes"), 0, "nothing is kept");
    assert_eq!(mounts.verify(layer).expect("verify"), Vec::new());
    mounts.prepare(layer).expect("prepare after forget");
    assert_eq!(mounts.bytes(&layer.index).expect("bytes"), before);
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
