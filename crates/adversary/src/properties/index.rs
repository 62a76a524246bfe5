//! Index files.
#![allow(clippy::unnecessary_debug_formatting, reason = "paths hold any bytes")]

use std::collections::BTreeSet;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;

use kiln_layer::{EntryKind, Index, LayerError, Limits, ReadLayer, read_layer, write_index};
use kiln_types::DiffId;

use crate::archive::Archive;
use crate::repair::index_head;

/// Checks the index as it is, and with its size and checksum made right.
pub(super) fn check(bytes: &[u8]) {
    check_bytes(bytes);
    if let Some(repaired) = index_head(bytes) {
        check_bytes(&repaired);
    }
}

fn check_bytes(bytes: &[u8]) {
    let index = match Index::from_bytes(bytes.to_vec(), "test") {
        Ok(index) => index,
        Err(error) => return assert_damage(&error),
    };
    let mut walked = 0;
    for found in index.walk() {
        walked += 1;
        assert!(walked <= bytes.len() / 13 + 2, "a walk without an end");
        match found {
            Ok((path, _)) => {
                if let Err(error) = index.lookup(&path) {
                    assert_damage(&error);
                }
            }
            Err(error) => assert_damage(&error),
        }
    }
    // What lies on a damaged index is an error or a good index, never a panic or another damaged one.
    let layer = on_top();
    let mut out = Cursor::new(Vec::new());
    match write_index(&layer.tree, layer.diff_id, layer.tar_size, &[index], &mut out) {
        Ok(_) => {
            let made = Index::from_bytes(out.into_inner(), "made").expect("our own index opens");
            check_index(&made, None);
        }
        Err(error) => super::assert_printable(&error),
    }
}

fn assert_damage(error: &LayerError) {
    super::assert_printable(error);
    assert!(matches!(error, LayerError::DamagedIndex { .. }), "{error:?}");
}

/// What holds for every index that this crate wrote; `tar` is the layer's own.
pub(super) fn check_index(index: &Index, tar: Option<(DiffId, u64)>) {
    let mut paths = BTreeSet::new();
    let mut inodes = BTreeSet::new();
    for found in index.walk() {
        let (path, entry) = found.expect("an index that was just written is whole");
        let name = path.file_name().map_or(&b""[..], OsStrExt::as_bytes);
        assert!(name.len() <= 255 && !matches!(name, b"." | b".."), "{path:?}");
        assert!(path.is_relative(), "{path:?}");
        let again = index.lookup(&path).expect("it is whole").expect("a walked path is there");
        assert_eq!(again, entry, "{path:?}");
        assert!(entry.mode <= 0o7777, "{path:?}");
        for xattr in &entry.xattrs {
            assert!(
                !xattr.name.starts_with(b"trusted.")
                    || entry.kind == EntryKind::Directory
                        && matches!(
                            (&xattr.name[..], &xattr.value[..]),
                            (b"trusted.overlay.opaque", b"y") | (b"trusted.overlay.origin", b"")
                        ),
                "{path:?}: {xattr:?}"
            );
        }
        match &entry.kind {
            EntryKind::File(extents) => {
                let mut len = 0;
                for extent in extents {
                    assert_eq!(extent.offset % 512, 0, "{path:?}");
                    assert!(index.devices().contains(&extent.tar), "{path:?}");
                    if let Some((tar, size)) = tar
                        && extent.tar == tar
                    {
                        assert!(extent.offset + extent.len <= size, "{path:?} beyond the tar");
                    }
                    len += extent.len;
                }
                assert_eq!(len, entry.size, "{path:?}");
            }
            EntryKind::Symlink(target) => {
                assert_eq!(target.len() as u64, entry.size, "{path:?}");
            }
            EntryKind::Directory => assert!(entry.nlink >= 2, "{path:?}"),
            _ => {}
        }
        assert!(entry.nlink > 0, "{path:?}");
        inodes.insert(entry.ino);
        assert!(paths.insert(path), "a name twice");
    }
    assert_eq!(inodes.len() as u64, index.inodes());
}

/// A layer that looks at much of what is below it.
fn on_top() -> &'static ReadLayer {
    static LAYER: std::sync::OnceLock<ReadLayer> = std::sync::OnceLock::new();
    LAYER.get_or_init(|| {
        let tar = Archive::new()
            .file("a/new", "1")
            .file("s/through", "2")
            .file("up/.wh.c", "")
            .file("abs/z", "3")
            .file("d/l/deep/er", "4")
            .hardlink("h2", "h")
            .hardlink("x/f2", "a/f")
            .hardlink("c2", "c")
            .file("x/.wh..wh..opq", "")
            .file(".wh.f", "")
            .end();
        read_layer(&tar[..], std::io::sink(), &Limits::default()).expect("it is a good layer")
    })
}
