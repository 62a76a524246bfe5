//! Layer archives.

use std::fs::File;
use std::io::{Cursor, Write as _};
use std::sync::OnceLock;

use kiln_layer::{
    DevicePolicy, Index, IndexOptions, LayerError, LayerTree, Limits, read_layer, read_tar_tree,
    write_index_with,
};
use kiln_types::{DiffId, Digest};

use super::index::check_index;
use crate::archive::Archive;
use crate::repair::tar_checksums;

/// Small enough that every bound is reached by small input.
fn limits() -> Limits {
    Limits {
        entries: 5_000,
        metadata_bytes: 1 << 20,
        depth: 64,
        pax_bytes: 64 << 10,
        tar_bytes: 16 << 20,
        inflate_ratio: 200,
        inflate_free_bytes: 1 << 20,
        ..Limits::default()
    }
}

/// Checks the archive as it is, and with its header checksums made right.
pub(super) fn check(bytes: &[u8]) {
    check_archive(bytes);
    if let Some(repaired) = tar_checksums(bytes) {
        check_archive(&repaired);
    }
}

fn check_archive(bytes: &[u8]) {
    let limits = limits();
    let mut copy = Vec::new();
    let layer = match read_layer(bytes, &mut copy, &limits) {
        Ok(layer) => layer,
        Err(error) => {
            super::assert_printable(&error);
            assert!(error.is_bad_layer(), "bad input is the layer's fault: {error:?}");
            assert!(copy.len() as u64 <= limits.tar_bytes, "{} bytes copied", copy.len());
            return;
        }
    };
    assert_eq!(layer.tar_size, copy.len() as u64);
    assert_eq!(layer.diff_id, DiffId(Digest::of(&copy)), "every byte counts into the diffID");
    assert!(layer.tree.entries() <= limits.entries);
    assert!(layer.tree.dropped().len() as u64 <= layer.tree.dropped_count());

    // Two ways to read a tar, one tree.
    let (seen, size) =
        read_tar_tree(&file_of(&copy), &limits).expect("what one way accepts the other accepts");
    assert_eq!(size, layer.tar_size);
    assert_eq!(seen.needs_parents(), layer.tree.needs_parents());

    let id = (layer.diff_id, layer.tar_size);
    let alone = indexed(&layer.tree, id, &[]);
    assert_eq!(indexed(&seen, id, &[]), alone, "one tree, one index");
    let base = base();
    let on_base = indexed(&layer.tree, id, std::slice::from_ref(base));
    assert_eq!(indexed(&layer.tree, id, std::slice::from_ref(base)), on_base, "not a function");
    if !layer.tree.needs_parents() {
        assert_eq!(on_base, alone, "it was said that the layers below do not matter");
    }
    let Some(on_base) = on_base else { return };
    // A layer fits on itself as well as on anything: what it made is what it names.
    let below = Index::from_bytes(on_base, "on the base").expect("our own index opens");
    let parents = [Index::from_bytes(base_bytes().clone(), "base").expect("it opens"), below];
    indexed(&layer.tree, id, &parents);
}

/// The index, checked; `None` when the layer does not fit what is below.
fn indexed(tree: &LayerTree, (id, size): (DiffId, u64), parents: &[Index]) -> Option<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let options = IndexOptions { devices: DevicePolicy::Keep };
    match write_index_with(tree, id, size, parents, &options, &mut bytes) {
        Ok(info) => {
            let bytes = bytes.into_inner();
            assert_eq!(info.size, bytes.len() as u64);
            assert_eq!(info.devices[0], id, "the layer's own tar is the first device");
            let index = Index::from_bytes(bytes.clone(), "test").expect("our own index opens");
            assert_eq!(index.devices(), info.devices);
            check_index(&index, Some((id, size)));
            Some(bytes)
        }
        Err(error) => {
            super::assert_printable(&error);
            assert!(
                matches!(error, LayerError::Placement { .. } | LayerError::Unrepresentable { .. }),
                "{error:?}"
            );
            None
        }
    }
}

/// A file without a name that holds `bytes`.
fn file_of(bytes: &[u8]) -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("tar", flags).expect("memory is there"));
    file.write_all(bytes).expect("memory is there");
    file
}

/// A layer with something of every kind for others to lie on.
pub(super) fn base_tar() -> Vec<u8> {
    Archive::new()
        .dir("./")
        .dir("a/")
        .file("a/f", [1; 700])
        .dir("a/b/")
        .file("a/b/c", "x")
        .symlink("s", "a")
        .symlink("up", "../../a/b")
        .symlink("abs", "/a/b")
        .symlink("loop", "loop")
        .symlink("d/l", "../s/b")
        .hardlink("h", "a/f")
        .fifo("p")
        .device(b'3', "c", 1, 3)
        .file("f", "f")
        .pax(&[("SCHILY.xattr.user.a", "1"), ("mtime", "1.5")])
        .dir("x/")
        .file("x/y", "")
        .end()
}

pub(super) fn base_bytes() -> &'static Vec<u8> {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let tar = base_tar();
        let layer = read_layer(&tar[..], std::io::sink(), &limits()).expect("it is a good layer");
        indexed(&layer.tree, (layer.diff_id, layer.tar_size), &[]).expect("it needs no parents")
    })
}

fn base() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| Index::from_bytes(base_bytes().clone(), "base").expect("it opens"))
}
