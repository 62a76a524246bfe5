//! Random archives: our index, our reader, the kernel, and GNU tar.

use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::archive::{Indexed, index};
use crate::debian::{fsck, gnu_extract, scratch};
use crate::fixtures::ErofsUtils;
use crate::kernel::{Mount, can_mount};
use crate::model::{Flavor, Model, OPAQUE, ops};
use crate::snapshot::{self, Kind, Tree, assert_same, of_directory};

pub(crate) fn shown(indexed: &Indexed) -> Tree {
    snapshot::shown(indexed, &[])
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_reader_shows_what_the_archive_says(ops in ops()) {
        let (tar, tree) = Model::new(&ops, Flavor::Any).finish();
        let indexed = index(tar);
        assert_same(&shown(&indexed), &tree);
        for path in tree.keys() {
            let path = std::path::Path::new(std::ffi::OsStr::new("/"))
                .join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path));
            prop_assert!(indexed.index().lookup(path).unwrap().is_some());
        }
    }

    #[test]
    fn indexing_is_a_function_of_the_archive(ops in ops()) {
        let (tar, _) = Model::new(&ops, Flavor::Any).finish();
        prop_assert_eq!(index(tar.clone()).bytes, index(tar).bytes);
    }

    #[test]
    fn damaged_archives_and_indexes_never_panic(ops in ops(), at: prop::sample::Index, byte: u8) {
        let (mut tar, _) = Model::new(&ops, Flavor::Any).finish();
        let mut indexed = index(tar.clone());
        let position = at.index(tar.len());
        tar[position] = byte;
        let _ = kiln_layer::read_layer(&tar[..], std::io::sink(), &kiln_layer::Limits::default());
        let position = 1536 + at.index(indexed.bytes.len() - 1536);
        indexed.bytes[position] = byte;
        // Every entry or an error, and an end.
        prop_assert!(indexed.index().walk().count() < 10_000);
    }
}

proptest! {
    #![proptest_config(Config { cases: 16, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_kernel_shows_what_the_archive_says_and_gnu_tar_extracts(ops in ops()) {
        if !can_mount() {
            return Ok(());
        }
        let (tar, tree) = Model::new(&ops, Flavor::Extractable).finish();
        let indexed = index(tar);
        let dir = scratch();
        let (index, tar) = indexed.store(dir.path());
        let mount = Mount::erofs(&index, &[&tar]);
        let mut ours = of_directory(&mount.path());
        assert_same(&ours, &tree);
        if let Some(tools) = ErofsUtils::get() {
            fsck(&tools, &index, &[&tar]);
        }

        for node in ours.values_mut() {
            node.xattrs.remove(OPAQUE);
        }
        let extracted = dir.path().join("extracted");
        std::fs::create_dir(&extracted).unwrap();
        gnu_extract(&tar, &extracted);
        let mut theirs = of_directory(&extracted);
        // GNU tar sets a directory's time when it leaves it: what comes back to it later changes that, as
        // does the making of directories that no entry describes.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
        for (path, node) in &mut theirs {
            if node.kind == Kind::Directory && (node.mtime.0 - now).abs() < 600 {
                node.mtime = ours[path].mtime;
                // Nor do those get more than Linux gives: set-group-ID passes on to them.
                if node.mtime == (0, 0) {
                    (node.mode, node.gid) = (ours[path].mode, ours[path].gid);
                }
            }
        }
        assert_same(&ours, &theirs);
    }
}
