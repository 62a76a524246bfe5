//! Layers whose meaning depends on the layers below.

use kiln_layer::LayerError;

use crate::archive::{Archive, Indexed, index, index_on, read, refuse_index};
use crate::snapshot::{Kind, shown, text};

fn base() -> Indexed {
    index(
        Archive::new()
            .dir_with("./", 0o751, 7, 70)
            .dir_with("etc/", 0o750, 1, 11)
            .pax(&[(b"SCHILY.xattr.user.kept", b"yes")])
            .dir_with("etc/deep/", 0o2770, 2, 12)
            .dir_with("usr/", 0o755, 0, 13)
            .dir_with("usr/lib/", 0o711, 3, 14)
            .file("usr/lib/old", b"old")
            .file("etc/file", b"content")
            .hardlink("etc/again", "etc/file")
            .symlink("lib", "usr/lib")
            .symlink("abs", "/usr/../usr/lib/.")
            .symlink("dangling", "new/place")
            .symlink("up", "../../../usr/lib")
            .symlink("loop", "loop")
            .symlink("via", "lib/sub")
            .end(),
    )
}

#[test]
fn which_layers_depend_on_those_below() {
    let a = Archive::new;
    for (name, tar, needs) in [
        ("all described", a().dir("./").dir("d/").file("d/f", b""), false),
        ("root implied", a().dir("d/").file("d/f", b""), true),
        ("directory implied", a().dir("./").file("d/f", b""), true),
        ("described later", a().file("d/f", b"").dir("d/").dir("./"), false),
        ("whiteout in an implied one", a().dir("./").file("d/.wh.f", b""), true),
        ("opaque but implied", a().dir("./").file("d/.wh..wh..opq", b""), true),
        (
            "implied below an opaque one",
            a().dir("./").dir("d/").file("d/.wh..wh..opq", b"").file("d/e/f", b""),
            false,
        ),
        ("implied and hidden below", a().dir("./").file(".wh.d", b"").file("d/f", b""), false),
        ("whiteouts only", a().dir("./").file(".wh.d", b""), false),
        ("hardlink inside", a().dir("./").file("f", b"").hardlink("l", "f"), false),
        ("hardlink below", a().dir("./").hardlink("l", "f").file("f", b""), true),
    ] {
        assert_eq!(read(&tar.end()).tree.needs_parents(), needs, "{name}");
    }
}

#[test]
fn a_layer_that_does_not_depend_on_parents_ignores_them() {
    let tar = Archive::new().dir("./").dir("lib/").file("lib/f", b"1").end();
    assert_eq!(index_on(tar.clone(), &[&base()]).bytes, index(tar).bytes);
}

#[test]
fn implied_directories_keep_what_they_have_below() {
    let base = base();
    let top =
        index_on(Archive::new().file("etc/deep/new", b"1").file("none/x/f", b"").end(), &[&base]);
    let (below, above) = (shown(&base, &[]), shown(&top, &[]));
    for path in [&b""[..], b"etc", b"etc/deep"] {
        let (below, above) = (&below[path], &above[path]);
        assert_eq!(
            (above.mode, above.uid, above.mtime, &above.xattrs),
            (below.mode, below.uid, below.mtime, &below.xattrs)
        );
    }
    assert_eq!(above[&b"etc/deep"[..]].xattrs[&b"user.kept"[..]], b"yes");
    assert!(!above.contains_key(&b"etc/file"[..]));
    for path in [&b"none"[..], b"none/x"] {
        assert_eq!((above[path].mode, above[path].uid, above[path].mtime), (0o755, 0, (0, 0)));
    }
}

#[test]
fn the_nearest_layer_that_shows_a_directory_counts() {
    let base = base();
    let a = Archive::new;
    let changed = index_on(a().dir("./").dir_with("etc/", 0o700, 9, 90).end(), &[&base]);
    let emptied = index_on(a().dir("./").dir("etc/").file("etc/.wh..wh..opq", b"").end(), &[&base]);
    let removed = index_on(a().dir("./").file(".wh.etc", b"").end(), &[&base]);
    let replaced = index_on(a().dir("./").file("etc", b"now a file").dir("etc2/").end(), &[&base]);
    let back = index_on(a().dir("./").dir_with("etc/", 0o711, 5, 50).end(), &[&base, &removed]);
    let top = a().file("etc/deep/new", b"1").end();
    let mode = |parents: &[&Indexed], path: &str| {
        shown(&index_on(top.clone(), parents), &[])[path.as_bytes()].mode
    };
    assert_eq!(mode(&[&base, &changed], "etc"), 0o700);
    assert_eq!(mode(&[&base, &changed], "etc/deep"), 0o2770);
    assert_eq!(mode(&[&base, &emptied], "etc"), 0o755);
    assert_eq!(mode(&[&base, &emptied], "etc/deep"), 0o755);
    assert_eq!(mode(&[&base, &removed], "etc"), 0o755);
    assert_eq!(mode(&[&base, &removed, &back], "etc"), 0o711);
    assert_eq!(mode(&[&base, &removed, &back], "etc/deep"), 0o755);
    let error = refuse_index(&top, &[&base, &replaced]);
    assert!(matches!(error, LayerError::Placement { .. }), "{error}");
    assert!(error.to_string().starts_with("layer entry `etc` "), "{error}");
}

#[test]
fn entries_below_a_lower_symlink_go_where_it_points() {
    let base = base();
    for (name, tar, path) in [
        ("relative", Archive::new().file("lib/new", b"1"), "usr/lib/new"),
        ("absolute with dots", Archive::new().file("abs/new", b"1"), "usr/lib/new"),
        ("beyond the root", Archive::new().file("up/new", b"1"), "usr/lib/new"),
        ("through another", Archive::new().file("via/new", b"1"), "usr/lib/sub/new"),
        ("dangling", Archive::new().file("dangling/new", b"1"), "new/place/new"),
        ("deep", Archive::new().file("lib/a/b/new", b"1"), "usr/lib/a/b/new"),
        ("explicit below", Archive::new().dir("lib/a/").file("lib/a/new", b"1"), "usr/lib/a/new"),
        (
            "this layer's own target",
            Archive::new().dir("usr/").dir("usr/lib/").file("lib/new", b"1"),
            "usr/lib/new",
        ),
        (
            "to a symlink of this layer",
            Archive::new().symlink("usr/lib", "other").file("lib/new", b"1"),
            "usr/other/new",
        ),
    ] {
        let top = index_on(tar.end(), &[&base]);
        let tree = shown(&top, &[]);
        assert_eq!(tree.get(path.as_bytes()).map(|node| &node.kind), Some(&text("1")), "{name}");
        for link in ["lib", "abs", "up", "via", "dangling"] {
            assert!(!tree.contains_key(link.as_bytes()), "{name}: the symlink stays visible");
        }
    }
    let top = index_on(Archive::new().file("lib/new", b"1").end(), &[&base]);
    assert_eq!(shown(&top, &[])[&b"usr/lib"[..]].mode, 0o711, "the target keeps its attributes");
}

#[test]
fn whiteouts_below_a_lower_symlink_go_where_it_points() {
    let base = base();
    let top = index_on(Archive::new().file("lib/.wh.old", b"").end(), &[&base]);
    assert_eq!(shown(&top, &[])[&b"usr/lib/old"[..]].kind, Kind::Whiteout);
    let top = index_on(Archive::new().file("lib/.wh..wh..opq", b"").end(), &[&base]);
    assert_eq!(shown(&top, &[])[&b"usr/lib"[..]].xattrs[&b"trusted.overlay.opaque"[..]], b"y");
    let removed = Archive::new().dir("./").file(".wh.usr", b"").file("lib/new", b"1").end();
    let tree = shown(&index_on(removed, &[&base]), &[]);
    assert_eq!(tree[&b"usr/lib/new"[..]].kind, text("1"));
    assert_eq!(tree[&b"usr"[..]].xattrs[&b"trusted.overlay.opaque"[..]], b"y");
    assert_eq!(tree[&b"usr/lib"[..]].mode, 0o755, "what is hidden gives no attributes");
}

#[test]
fn an_explicit_directory_replaces_a_lower_symlink() {
    let top =
        index_on(Archive::new().dir("./").dir("lib/").file("lib/new", b"1").end(), &[&base()]);
    let tree = shown(&top, &[]);
    assert_eq!(tree[&b"lib/new"[..]].kind, text("1"));
    assert!(!tree.contains_key(&b"usr"[..]));
}

#[test]
fn two_spellings_of_one_place_meet_and_the_later_wins() {
    let base = base();
    let a = Archive::new;
    for (tar, content) in [
        (a().dir("usr/").dir("usr/lib/").file("usr/lib/f", b"1").file("lib/f", b"2"), "2"),
        (a().file("lib/f", b"2").dir("usr/").dir("usr/lib/").file("usr/lib/f", b"1"), "1"),
    ] {
        let tree = shown(&index_on(tar.end(), &[&base]), &[]);
        assert_eq!(tree[&b"usr/lib/f"[..]].kind, text(content));
    }
    let both =
        a().dir("lib/d/").file("lib/d/x", b"").file("usr/lib/d/y", b"").file("lib/.wh.d", b"");
    let tree = shown(&index_on(both.end(), &[&base]), &[]);
    assert!(tree.contains_key(&b"usr/lib/d/x"[..]) && tree.contains_key(&b"usr/lib/d/y"[..]));
    assert_eq!(tree[&b"usr/lib/d"[..]].xattrs[&b"trusted.overlay.opaque"[..]], b"y");
    let described = a().file("usr/lib/d/y", b"").dir_with("lib/d/", 0o700, 4, 5).end();
    assert_eq!(shown(&index_on(described, &[&base]), &[])[&b"usr/lib/d"[..]].mode, 0o700);
}

#[test]
fn directories_that_cannot_be_are_refused() {
    let base = base();
    let a = Archive::new;
    for (tar, entry, problem) in [
        (a().file("loop/f", b""), "loop", "40 symlinks"),
        (a().file("etc/file/f", b""), "etc/file", "not a directory"),
        (a().symlink("new", "etc/file").file("dangling/f", b""), "dangling", "not a directory"),
    ] {
        let error = refuse_index(&tar.end(), &[&base]);
        assert!(matches!(error, LayerError::Placement { .. }) && error.is_bad_layer(), "{error}");
        assert!(error.to_string().starts_with(&format!("layer entry `{entry}` ")), "{error}");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn a_hardlink_to_a_lower_file_refers_to_the_lower_tar() {
    let base = base();
    let top = index_on(
        Archive::new()
            .dir("./")
            .hardlink("one", "etc/file")
            .hardlink("two", "etc/again")
            .hardlink("three", "lib/old")
            .hardlink("link", "lib")
            .end(),
        &[&base],
    );
    assert_eq!(top.info.devices, [top.layer.diff_id, base.layer.diff_id]);
    let tree = shown(&top, &[&base]);
    let (one, below) = (&tree[&b"one"[..]], &shown(&base, &[])[&b"etc/file"[..]]);
    assert_eq!((&one.kind, one.mode, one.mtime), (&below.kind, below.mode, below.mtime));
    // Both names of one inode below are one inode above too.
    assert_eq!((one.nlink, &tree[&b"two"[..]].first[..]), (2, &b"one"[..]));
    assert_eq!(tree[&b"three"[..]].kind, text("old"));
    assert_eq!(tree[&b"link"[..]].kind, Kind::Symlink(b"usr/lib".to_vec()));

    // A layer on top of that may link on: the tar is still the base's.
    let third = index_on(Archive::new().dir("./").hardlink("x", "one").end(), &[&base, &top]);
    assert_eq!(third.info.devices, [third.layer.diff_id, base.layer.diff_id]);
    assert_eq!(shown(&third, &[&base, &top])[&b"x"[..]].kind, text("content"));
}

#[test]
fn lower_hardlinks_see_what_was_there_when_they_were_made() {
    let base = base();
    let a = Archive::new;
    for (name, tar, expected) in [
        (
            "removed afterwards",
            a().dir("./").hardlink("l", "etc/file").file("etc/.wh.file", b""),
            "content",
        ),
        (
            "replaced afterwards",
            a().dir("./").hardlink("l", "etc/file").file("etc/file", b"new"),
            "content",
        ),
        (
            "replaced before",
            a().dir("./").file("etc/file", b"new").hardlink("l", "etc/file"),
            "new",
        ),
        (
            "by another spelling",
            a().dir("./")
                .dir("usr/")
                .dir("usr/lib/")
                .file("usr/lib/old", b"new")
                .hardlink("l", "lib/old"),
            "new",
        ),
    ] {
        let tree = shown(&index_on(tar.end(), &[&base]), &[&base]);
        assert_eq!(tree[&b"l"[..]].kind, text(expected), "{name}");
    }
}

#[test]
fn hardlinks_to_nothing_are_refused() {
    let base = base();
    let removed = index_on(Archive::new().dir("./").file("etc/.wh.file", b"").end(), &[&base]);
    let a = Archive::new;
    for (target, parents, problem) in [
        ("missing", &[&base][..], "neither an earlier entry"),
        ("etc", &[&base], "is a directory"),
        ("etc/file/x", &[&base], "not a directory"),
        ("etc/file", &[&base, &removed], "neither an earlier entry"),
        ("etc/file", &[], "neither an earlier entry"),
    ] {
        let error = refuse_index(&a().dir("./").hardlink("d/l", target).end(), parents);
        assert!(error.to_string().starts_with("layer entry `d/l` "), "{error}");
        assert!(
            error.to_string().contains(&format!("`{target}` {problem}"))
                || error.to_string().contains(problem),
            "{error}"
        );
    }
}
