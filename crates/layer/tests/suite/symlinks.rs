//! Entries below symlinks of their own layer.

use kiln_layer::{LayerError, Limits, read_layer};

use crate::archive::{Archive, Indexed, index, index_on, read, refuse, refuse_index};
use crate::snapshot::{Kind, Tree, shown, text};

/// All files of `tree` with their content, and all symlinks with their target.
fn leaves(tree: &Tree) -> Vec<(String, Kind)> {
    let leaves = tree.iter().filter(|(_, node)| node.kind != Kind::Directory);
    leaves.map(|(path, node)| (String::from_utf8_lossy(path).into(), node.kind.clone())).collect()
}

fn expect(name: &str, tree: &Tree, expected: &[(&str, &str)]) {
    let expected: Vec<(String, Kind)> = expected
        .iter()
        .map(|(path, what)| match what.strip_prefix("-> ") {
            Some(target) => ((*path).to_owned(), Kind::Symlink(target.into())),
            None if *what == "whiteout" => ((*path).to_owned(), Kind::Whiteout),
            None => ((*path).to_owned(), text(what)),
        })
        .collect();
    assert_eq!(leaves(tree), expected, "{name}");
}

#[test]
fn entries_go_where_the_symlink_leads_at_that_point() {
    let a = || Archive::new().dir("./");
    for (name, tar, expected) in [
        (
            "merged usr",
            a().dir("usr/").dir("usr/lib/").symlink("lib", "usr/lib").file("lib/f", b"1"),
            &[("lib", "-> usr/lib"), ("usr/lib/f", "1")][..],
        ),
        (
            "dangling: what is not there is made",
            a().symlink("lib", "usr/lib").file("lib/f", b"1"),
            &[("lib", "-> usr/lib"), ("usr/lib/f", "1")],
        ),
        (
            "absolute",
            a().symlink("lib", "/usr/lib").file("lib/f", b"1"),
            &[("lib", "-> /usr/lib"), ("usr/lib/f", "1")],
        ),
        (
            "beyond the root",
            a().symlink("x", "/../../../etc").file("x/f", b"1"),
            &[("etc/f", "1"), ("x", "-> /../../../etc")],
        ),
        (
            "to the directory above",
            a().dir("d/").symlink("d/x", "..").file("d/x/f", b"1"),
            &[("d/x", "-> .."), ("f", "1")],
        ),
        (
            "to its own directory",
            a().dir("d/").symlink("d/x", ".").file("d/x/x/f", b"1"),
            &[("d/f", "1"), ("d/x", "-> .")],
        ),
        ("above the root", a().symlink("x", "..").file("x/f", b"1"), &[("f", "1"), ("x", "-> ..")]),
        ("to the root", a().symlink("x", "/").file("x/x/f", b"1"), &[("f", "1"), ("x", "-> /")]),
        (
            "through one and another",
            a().symlink("a", "b/c").symlink("b", "d").file("a/f", b"1"),
            &[("a", "-> b/c"), ("b", "-> d"), ("d/c/f", "1")],
        ),
        (
            "symlinks are made through symlinks",
            a().symlink("a", "b").symlink("a/l", "../c").file("b/l/f", b"1"),
            &[("a", "-> b"), ("b/l", "-> ../c"), ("c/f", "1")],
        ),
        (
            "replaced by another symlink",
            a().symlink("l", "a").file("l/f", b"1").symlink("l", "b").file("l/f", b"2"),
            &[("a/f", "1"), ("b/f", "2"), ("l", "-> b")],
        ),
        (
            "replaced by a directory and back",
            a().symlink("l", "a")
                .file("l/f", b"1")
                .dir("l/")
                .file("l/g", b"2")
                .symlink("l", "b")
                .file("l/h", b"3"),
            &[("a/f", "1"), ("b/h", "3"), ("l", "-> b")],
        ),
        (
            "a link of the chain is replaced later",
            a().symlink("a", "b").symlink("b", "c").file("a/f", b"1").symlink("b", "d"),
            &[("a", "-> b"), ("b", "-> d"), ("c/f", "1")],
        ),
        (
            "the later entry counts, however it is spelled",
            a().symlink("l", "d")
                .file("d/f", b"1")
                .file("l/f", b"2")
                .file("l/g", b"3")
                .file("d/g", b"4"),
            &[("d/f", "2"), ("d/g", "4"), ("l", "-> d")],
        ),
        (
            "the name itself is not followed",
            a().dir("d/").symlink("l", "d").file("l", b"1"),
            &[("l", "1")],
        ),
        (
            "hardlink through a symlink",
            a().dir("d/")
                .file("d/f", b"1")
                .symlink("l", "d")
                .hardlink("h", "l/f")
                .hardlink("l/i", "d/f"),
            &[("d/f", "1"), ("d/i", "1"), ("h", "1"), ("l", "-> d")],
        ),
        (
            "hardlink to a symlink is the symlink",
            a().dir("d/").symlink("l", "d").hardlink("m", "l").file("m/f", b"1"),
            &[("d/f", "1"), ("l", "-> d"), ("m", "-> d")],
        ),
        (
            "whiteout through a symlink",
            a().dir("d/").symlink("l", "d").file("l/.wh.x", b""),
            &[("d/x", "whiteout"), ("l", "-> d")],
        ),
        (
            "40 in a chain",
            (1..40)
                .fold(a().symlink("l0", "d"), |a, n| {
                    a.symlink(&format!("l{n}"), &format!("l{}", n - 1))
                })
                .file("l39/f", b"1"),
            &[],
        ),
    ] {
        let tar = tar.end();
        let tree = shown(&index(tar), &[]);
        if expected.is_empty() {
            assert_eq!(tree[&b"d/f"[..]].kind, text("1"), "{name}");
        } else {
            expect(name, &tree, expected);
        }
    }
    let links = a().dir("d/").file("d/f", b"1").symlink("l", "d").hardlink("h", "l/f").end();
    let tree = shown(&index(links), &[]);
    assert_eq!((&tree[&b"h"[..]].first[..], tree[&b"h"[..]].nlink), (&b"d/f"[..], 2));
    let opaque = a().dir("d/").symlink("l", "d").file("l/.wh..wh..opq", b"").end();
    let tree = shown(&index(opaque), &[]);
    assert_eq!(tree[&b"d"[..]].xattrs[&b"trusted.overlay.opaque"[..]], b"y");
    let described = a().dir("d/").symlink("l", ".").dir_with("l/d/", 0o700, 4, 5).end();
    assert_eq!(shown(&index(described), &[])[&b"d"[..]].mode, 0o700);
}

#[test]
fn symlinks_that_cannot_be_followed_are_named() {
    let a = Archive::new;
    let chain = (1..41)
        .fold(a().symlink("l0", "d"), |a, n| a.symlink(&format!("l{n}"), &format!("l{}", n - 1)));
    for (name, tar, entry, link, problem) in [
        ("to itself", a().symlink("l", "l").file("l/f", b""), "l/f", "l", "40 symlinks"),
        (
            "round",
            a().symlink("a", "b").symlink("b", "a").file("a/f", b""),
            "a/f",
            "a",
            "40 symlinks",
        ),
        ("41 in a chain", chain.file("l40/f", b""), "l40/f", "l40", "more than 40 symlinks"),
        (
            "to a file",
            a().file("f", b"").symlink("d/l", "../f").file("d/l/x", b""),
            "d/l/x",
            "d/l",
            "`f` on its way is not a directory",
        ),
        (
            "to a whiteout",
            a().symlink("l", ".wh.x").file("l/f", b""),
            "l/f",
            "l",
            "`.wh.x` on its way cannot be a name",
        ),
        (
            "a hardlink's target",
            a().symlink("l", "l").hardlink("h", "l/f"),
            "h",
            "l",
            "40 symlinks",
        ),
        ("a whiteout", a().symlink("l", "l").file("l/.wh.f", b""), "l/.wh.f", "l", "40 symlinks"),
    ] {
        let error = refuse(&tar.end());
        let expected = format!("`{link}` is a symlink that cannot be followed: ");
        assert!(
            matches!(error, LayerError::Entry { .. }) && error.is_bad_layer(),
            "{name}: {error}"
        );
        let text = error.to_string();
        assert!(text.starts_with(&format!("layer entry `{entry}` (")), "{name}: {text}");
        assert!(text.contains(&expected) && text.contains(problem), "{name}: {text}");
    }
}

#[test]
fn bounds_hold_through_symlinks() {
    let a = Archive::new;
    let names = ["a"; 40].join("/");
    let error = |tar: Archive, limits: Limits| {
        read_layer(&tar.end()[..], std::io::sink(), &limits).unwrap_err().to_string()
    };
    let deep = || a().symlink("s", &names).file("s/f", b"");
    let shallow = Limits { depth: 40, ..Limits::default() };
    assert!(error(deep(), shallow).contains("raise the limit `depth`"));
    read_layer(&deep().end()[..], std::io::sink(), &Limits { depth: 41, ..Limits::default() })
        .unwrap();
    let short = Limits { path_bytes: 79, ..Limits::default() };
    assert!(error(deep(), short).contains("raise the limit `path_bytes`"));
    let few = Limits { entries: 41, ..Limits::default() };
    assert!(error(deep(), few).contains("raise the limit `entries`"));
    // Each entry asks for 200 directories that nothing else asks for.
    let mut many = a();
    for number in 0..600 {
        let target = format!("d{number}/{}", ["a"; 200].join("/"));
        many = many.pax(&[(b"linkpath", target.as_bytes())]).symlink("s", "x").file("s/f", b"");
    }
    assert!(error(many, Limits::default()).contains("more than 100000 directories"));
}

fn base() -> Indexed {
    index(
        Archive::new()
            .dir("./")
            .dir("usr/")
            .dir_with("usr/lib/", 0o711, 3, 14)
            .file("usr/lib/old", b"old")
            .symlink("lib", "usr/lib")
            .symlink("here", "usr")
            .dir("real/")
            .end(),
    )
}

#[test]
fn symlinks_of_a_layer_lead_into_the_layers_below() {
    let base = base();
    let a = || Archive::new().dir("./");
    for (name, tar, expected) in [
        (
            "a directory of the layer below",
            a().symlink("l", "usr/lib").file("l/new", b"1"),
            &[("l", "-> usr/lib"), ("usr/lib/new", "1")][..],
        ),
        (
            "a symlink of the layer below",
            a().symlink("l", "lib").file("l/new", b"1"),
            &[("l", "-> lib"), ("usr/lib/new", "1")],
        ),
        (
            "below a symlink of the layer below",
            a().symlink("l", "here/lib/x").file("l/new", b"1"),
            &[("l", "-> here/lib/x"), ("usr/lib/x/new", "1")],
        ),
        (
            "back to a symlink of this layer",
            a().symlink("l", "lib").symlink("usr/lib", "other").file("l/new", b"1"),
            &[("l", "-> lib"), ("usr/lib", "-> other"), ("usr/other/new", "1")],
        ),
        (
            "a hardlink to what only the layer below has",
            a().symlink("l", "lib").hardlink("h", "l/old"),
            &[("h", "old"), ("l", "-> lib")],
        ),
        (
            "a whiteout",
            a().symlink("l", "lib").file("l/.wh.old", b""),
            &[("l", "-> lib"), ("usr/lib/old", "whiteout")],
        ),
        (
            "`..` out of a directory of the layer below",
            a().symlink("l", "real/../usr/lib").file("l/new", b"1"),
            &[("l", "-> real/../usr/lib"), ("usr/lib/new", "1")],
        ),
        (
            "`..` out of what is below a symlink of the layer below",
            a().symlink("here/lib/l", "../x").file("here/lib/l/new", b"1"),
            &[("usr/lib/l", "-> ../x"), ("usr/x/new", "1")],
        ),
        (
            "`..` out of what is nowhere",
            a().symlink("l", "nowhere/../usr/lib").file("l/new", b"1"),
            &[("l", "-> nowhere/../usr/lib"), ("usr/lib/new", "1")],
        ),
    ] {
        let tree = shown(&index_on(tar.end(), &[&base]), &[&base]);
        expect(name, &tree, expected);
    }
    let top = index_on(a().symlink("l", "usr/lib").file("l/new", b"1").end(), &[&base]);
    assert_eq!(shown(&top, &[])[&b"usr/lib"[..]].mode, 0o711, "the target keeps its attributes");
}

#[test]
fn a_directory_in_the_place_of_another_entry_shows_nothing_from_below() {
    let base = base();
    let a = || Archive::new().dir("./");
    for tar in [
        a().file("usr", b"1").dir("usr/"),
        a().symlink("usr", "real").file("usr/f", b"1").dir("usr/"),
        a().hardlink("usr", "lib").dir("usr/"),
    ] {
        let tree = shown(&index_on(tar.end(), &[&base]), &[&base]);
        assert_eq!(tree[&b"usr"[..]].kind, Kind::Directory);
        assert_eq!(tree[&b"usr"[..]].xattrs[&b"trusted.overlay.opaque"[..]], b"y");
    }
    let twice = index_on(a().dir("usr/").dir("usr/").end(), &[&base]);
    assert!(shown(&twice, &[])[&b"usr"[..]].xattrs.is_empty());
}

#[test]
fn what_only_the_layers_below_can_tell_is_asked_of_them() {
    let base = base();
    let a = || Archive::new().dir("./").dir("d/");
    // Whether `lib` is a symlink decides where this leads.
    let tar = a().symlink("l", "lib/../d").file("l/f", b"1").end();
    assert!(read(&tar).tree.needs_parents());
    expect("alone", &shown(&index(tar.clone()), &[]), &[("d/f", "1"), ("l", "-> lib/../d")]);
    let error = refuse_index(&tar, &[&base]);
    assert!(matches!(error, LayerError::Placement { .. }) && error.is_bad_layer(), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("layer entry `lib` ") && text.contains("to `usr/lib`"), "{text}");
    // This layer says what `lib` is, or that nothing is below.
    for tar in [
        a().dir("lib/").symlink("l", "lib/../d").file("l/f", b"1"),
        a().file(".wh.lib", b"").symlink("l", "lib/../d").file("l/f", b"1"),
    ] {
        let tar = tar.end();
        assert!(!read(&tar).tree.needs_parents());
        assert_eq!(index_on(tar.clone(), &[&base]).bytes, index(tar).bytes);
    }
    // A name that is two things, because a symlink below makes two spellings one.
    let two = a().symlink("lib/l", "d").file("usr/lib/l/f", b"1").end();
    let text = refuse_index(&two, &[&base]).to_string();
    assert!(text.contains("`usr/lib/l`") && text.contains("spell both the same way"), "{text}");
}
