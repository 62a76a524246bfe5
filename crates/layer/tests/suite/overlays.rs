//! Layers as lowers of an overlay: what a sandbox sees.

use std::path::PathBuf;

use crate::archive::{Archive, Indexed, index, index_on};
use crate::debian::scratch;
use crate::kernel::{Mount, can_mount};
use crate::snapshot::{Kind, Tree, of_directory, text};

/// Mounts a chain of layers, base first, and reads the merged tree.
fn merged(chain: &[&Indexed]) -> Tree {
    let dir = scratch();
    let mounts: Vec<Mount> = chain.iter().map(|layer| mount(layer, chain, &dir)).collect();
    let top_first: Vec<&Mount> = mounts.iter().rev().collect();
    of_directory(&Mount::overlay(&top_first).path())
}

fn mount(layer: &Indexed, chain: &[&Indexed], dir: &tempfile::TempDir) -> Mount {
    let (index, _) = layer.store(dir.path());
    let tars: Vec<PathBuf> = layer
        .index()
        .devices()
        .iter()
        .map(|tar| {
            let owner = chain.iter().find(|other| other.layer.diff_id == *tar).unwrap();
            owner.store(dir.path()).1
        })
        .collect();
    let tars: Vec<&std::path::Path> = tars.iter().map(PathBuf::as_path).collect();
    Mount::erofs(&index, &tars)
}

fn base() -> Indexed {
    index(
        Archive::new()
            .dir_with("./", 0o751, 7, 70)
            .dir_with("var/", 0o711, 1, 11)
            .dir("var/log/")
            .file("var/log/a", b"a")
            .file("var/log/b", b"b")
            .dir("opt/")
            .file("opt/old", b"old")
            .dir("gone/")
            .file("gone/f", b"")
            .dir("usr/")
            .dir("usr/lib/")
            .file("usr/lib/libc", b"libc")
            .symlink("lib", "usr/lib")
            .file("was-file", b"1")
            .dir("was-dir/")
            .file("was-dir/f", b"1")
            .end(),
    )
}

#[test]
fn layers_hide_replace_and_keep() {
    if !can_mount() {
        return;
    }
    let base = base();
    let top = index_on(
        Archive::new()
            .file("var/log/.wh.a", b"")
            .file("var/log/c", b"c")
            .dir("opt/")
            .file("opt/.wh..wh..opq", b"")
            .file("opt/new", b"new")
            .file(".wh.gone", b"")
            .file("lib/libm", b"libm")
            .dir("was-file/")
            .file("was-file/f", b"2")
            .file("was-dir", b"2")
            .hardlink("copy", "usr/lib/libc")
            .end(),
        &[&base],
    );
    let tree = merged(&[&base, &top]);
    let names: Vec<String> =
        tree.keys().map(|path| String::from_utf8(path.clone()).unwrap()).collect();
    let expected = [
        "",
        "copy",
        "lib",
        "opt",
        "opt/new",
        "usr",
        "usr/lib",
        "usr/lib/libc",
        "usr/lib/libm",
        "var",
        "var/log",
        "var/log/b",
        "var/log/c",
        "was-dir",
        "was-file",
        "was-file/f",
    ];
    assert_eq!(names, expected);
    // Directories that the upper layer only implies are as they were.
    assert_eq!((tree[&b""[..]].mode, tree[&b""[..]].uid), (0o751, 7));
    assert_eq!((tree[&b"var"[..]].mode, tree[&b"var"[..]].mtime), (0o711, (11, 0)));
    assert_eq!(tree[&b"lib"[..]].kind, Kind::Symlink(b"usr/lib".to_vec()));
    assert_eq!(tree[&b"copy"[..]].kind, text("libc"));
    assert_eq!(tree[&b"was-dir"[..]].kind, text("2"));
}

#[test]
fn whiteouts_in_a_directory_of_one_layer_are_not_listed() {
    if !can_mount() {
        return;
    }
    let base = base();
    let top = index_on(
        Archive::new()
            .dir("./")
            .dir("only/")
            .file("only/.wh.nothing", b"")
            .file("only/f", b"")
            .dir("both/")
            .file("both/.wh..wh..opq", b"")
            .file("both/.wh.x", b"")
            .end(),
        &[&base],
    );
    for chain in [&[&base, &top][..], &[&top, &base]] {
        let tree = merged(chain);
        assert!(tree.values().all(|node| node.kind != Kind::Whiteout), "{:?}", tree.keys());
        assert!(tree.contains_key(&b"only/f"[..]));
        assert!(!tree.contains_key(&b"only/nothing"[..]));
    }
}

/// What overlayfs shows of a chain is what indexes of a flat tar of it show.
#[test]
fn a_long_chain_is_the_sum_of_its_layers() {
    if !can_mount() {
        return;
    }
    let mut chain = vec![base()];
    for number in 0..12 {
        let parents: Vec<&Indexed> = chain.iter().collect();
        let tar = Archive::new()
            .file(&format!("var/log/n{number}"), number.to_string().as_bytes())
            .file(&format!("var/log/.wh.n{}", number - 1), b"")
            .file("lib/latest", number.to_string().as_bytes())
            .hardlink(
                &format!("kept-{number}"),
                if number == 0 { "opt/old" } else { "lib/latest" },
            );
        let tar = if number == 0 { tar } else { tar.file("lib/.wh.gone", b"") };
        chain.push(index_on(tar.end(), &parents));
    }
    let tree = merged(&chain.iter().collect::<Vec<_>>());
    assert_eq!(tree[&b"usr/lib/latest"[..]].kind, text("11"));
    assert_eq!(tree[&b"var/log/n11"[..]].kind, text("11"));
    assert!((0..11).all(|n| !tree.contains_key(format!("var/log/n{n}").as_bytes())));
    assert_eq!(tree[&b"kept-0"[..]].kind, text("old"));
    assert_eq!(tree[&b"kept-5"[..]].kind, text("5"));
    assert_eq!(tree[&b"var"[..]].mode, 0o711);
}
