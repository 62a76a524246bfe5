//! Entries, hardlinks and whiteouts through symlinks of their own layer.

use kiln_adversary::Archive;

use super::{refused, run, shows};

fn a() -> Archive {
    Archive::new()
}

/// `length` symlinks in a row, the last to a directory of the image, and a file through all of them.
fn chain(length: usize) -> Vec<u8> {
    let links = (1..length).fold(a().symlink("l1", "etc"), |archive, number| {
        archive.symlink(format!("l{}", number + 1), format!("l{number}"))
    });
    links.file(format!("l{length}/kiln-evil"), "x").end()
}

#[test]
fn heavy_symlinks_of_one_layer_stay_in_the_root() {
    run(|host| {
        let up = format!("../../../../../../../..{host}");
        let secret = format!("{host}/secret");
        vec![
            shows(
                "absolute symlink to the host and a file through it",
                vec![a().symlink("l", host).file("l/kiln-evil", "x").file("l/secret", "y").end()],
                "test -L /l && cat /l/kiln-evil /l/secret; ls -A /l/",
                "xykiln-evil\nsecret",
            ),
            shows(
                "relative symlink to the host and a file through it",
                vec![a().symlink("l", &up).file("l/secret", "mine").end()],
                "cat /l/secret; ls -A /l/",
                "minesecret",
            ),
            shows(
                "symlink above the root and a file through it",
                vec![a().symlink("x", "/../../../etc").file("x/kiln-evil", "fine").end()],
                "readlink /x; cat /etc/kiln-evil; test -e /etc/passwd && echo kept",
                "/../../../etc\nfinekept",
            ),
            shows(
                "symlink to the directory above the root",
                vec![a().symlink("x", "..").file("x/tmp/kiln-evil", "fine").end()],
                "cat /tmp/kiln-evil",
                "fine",
            ),
            shows(
                "chain of symlinks and a file through it",
                vec![a().symlink("b", host).symlink("a", "b").file("a/kiln-evil", "x").end()],
                "cat /a/kiln-evil; ls -A /b/",
                "xkiln-evil",
            ),
            shows(
                "symlink in the middle of a path",
                vec![a().dir("d").symlink("d/l", host).file("d/l/inside/f", "x").end()],
                "cat /d/l/inside/f; test -e /d/l/secret || echo no secret",
                "xno secret",
            ),
            shows(
                "neighbour: merged directories, as concatenated packages have them",
                vec![
                    a().dir("usr/")
                        .dir("usr/lib/")
                        .symlink("lib", "usr/lib")
                        .symlink("lib64", "/usr/lib/")
                        .file("lib/one", "1")
                        .file("usr/lib/two", "2")
                        .file("lib64/three", "3")
                        .hardlink("lib/four", "lib64/one")
                        .end(),
                ],
                "cat /usr/lib/one /lib/two /lib/three /lib64/four; ls /usr/lib; test -L /lib && \
                 stat -c %h /lib/one",
                "1231four\none\nthree\ntwo\n2",
            ),
            shows(
                "neighbour: a symlink to a directory that only a layer below has",
                vec![a().symlink("x", "etc").file("x/kiln-evil", "fine").end()],
                "cat /etc/kiln-evil; test -L /x && test -e /etc/passwd && echo kept",
                "finekept",
            ),
            shows(
                "a symlink to a symlink of a layer below",
                vec![
                    a().symlink("below", "etc").end(),
                    a().symlink("x", "below").file("x/kiln-evil", "fine").end(),
                ],
                "cat /etc/kiln-evil; readlink /x; readlink /below",
                "finebelow\netc",
            ),
            shows(
                "a symlink whose end a layer below sends to the host",
                vec![
                    a().symlink("below", host).end(),
                    a().symlink("x", "below").file("x/secret", "mine").end(),
                ],
                "cat /x/secret; ls -A /x/",
                "minesecret",
            ),
            refused(
                "a symlink back out of a symlink of a layer below",
                vec![
                    a().symlink("below", host).end(),
                    a().symlink("x", "below/..").file("x/kiln-evil", "x").end(),
                ],
                &["entry `below`", "leads through it and back by `..`", host],
            ),
            refused(
                "a symlink to itself",
                vec![a().symlink("l", "l").file("l/kiln-evil", "x").end()],
                &["`l/kiln-evil`", "`l` is a symlink that cannot be followed", "40 symlinks"],
            ),
            refused(
                "two symlinks to each other",
                vec![a().symlink("l", "m").symlink("m", "l").file("m/kiln-evil", "x").end()],
                &["`m/kiln-evil`", "`m` is a symlink that cannot be followed", "40 symlinks"],
            ),
            refused(
                "a chain of 41",
                vec![chain(41)],
                &["`l41/kiln-evil`", "more than 40 symlinks follow each other"],
            ),
            shows("neighbour: a chain of 40", vec![chain(40)], "cat /etc/kiln-evil", "x"),
            refused(
                "a symlink to a file",
                vec![a().file("f", "").symlink("l", "f").file("l/kiln-evil", "x").end()],
                &["`l/kiln-evil`", "`f` on its way is not a directory in this layer"],
            ),
            shows(
                "a symlink to the host, a directory in its place, and the symlink again",
                vec![
                    a().symlink("t", host)
                        .file("t/secret", "first")
                        .dir("t/")
                        .file("t/inside/kiln-evil", "gone")
                        .symlink("t", host)
                        .file("t/kiln-evil", "last")
                        .end(),
                ],
                "test -L /t; cat /t/secret /t/kiln-evil; ls -A /t/",
                "firstlastkiln-evil\nsecret",
            ),
            shows(
                "a symlink into another process's root",
                vec![
                    a().symlink("l", format!("/proc/1/root{host}")).file("l/kiln-evil", "x").end(),
                ],
                "cat /l/kiln-evil 2>/dev/null || echo nothing there",
                "nothing there",
            ),
            refused(
                "hardlink through a symlink to a file of the host",
                vec![a().symlink("l", host).hardlink("h", "l/secret").end()],
                &["entry `h`", "neither an earlier entry of this layer nor in the layers below"],
            ),
            shows(
                "hardlinks through a symlink, in both directions",
                vec![
                    a().symlink("l", host)
                        .file("l/secret", "mine")
                        .hardlink("h", "l/secret")
                        .hardlink("l/kiln-evil", &secret)
                        .end(),
                ],
                "stat -c %h /h; cat /l/secret /h /l/kiln-evil",
                "3\nmineminemine",
            ),
            shows(
                "neighbour: hardlink through a symlink to a file of the image",
                vec![a().symlink("l", "etc").hardlink("h", "l/passwd").end()],
                "cmp /h /etc/passwd && echo same",
                "same",
            ),
            shows(
                "whiteouts through a symlink to the host",
                vec![a().symlink("l", host).file("l/.wh.secret", "").file("l/f", "").end()],
                "ls -A /l/",
                "f",
            ),
            shows(
                "neighbour: whiteouts through a symlink to a directory",
                vec![a().symlink("l", "etc").file("l/.wh.passwd", "").end()],
                "test -e /etc/passwd || echo gone; test -L /l && echo link",
                "gone\nlink",
            ),
            shows(
                "an opaque mark through a symlink to a directory",
                vec![
                    a().dir("d").file("d/old", "").end(),
                    a().symlink("l", "d").file("l/.wh..wh..opq", "").file("l/new", "").end(),
                ],
                "ls -A /d",
                "new",
            ),
        ]
    });
}
