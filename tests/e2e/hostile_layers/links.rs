//! Symlinks and hardlinks.

use kiln_adversary::Archive;

use super::{refused, run, shows};

fn a() -> Archive {
    Archive::new()
}

#[test]
fn heavy_symlinks_lead_nowhere_but_into_the_root() {
    run(|host| {
        let up = format!("../../../../../../../..{host}");
        vec![
            shows(
                "neighbour: symlink to a directory beside it, files in the directory",
                vec![a().dir("d").symlink("l", "d").file("d/f", "fine").end()],
                "cat /l/f; readlink /l",
                "fined",
            ),
            shows(
                "absolute symlink below, a file through it above",
                vec![
                    a().symlink("l", host).end(),
                    a().file("l/kiln-evil", "inside").file("l/secret", "mine").end(),
                ],
                "readlink /l >/dev/null && cat /l/kiln-evil /l/secret; ls /l/",
                "insideminekiln-evil\nsecret",
            ),
            shows(
                "relative symlink below, a file through it above",
                vec![a().symlink("l", &up).end(), a().file("l/secret", "mine").end()],
                "cat /l/secret; ls /l/",
                "minesecret",
            ),
            shows(
                "neighbour: symlink to a directory below, a file through it above",
                vec![
                    a().dir("d").file("d/old", "old").symlink("l", "d").end(),
                    a().file("l/new", "new").end(),
                ],
                "cat /d/old /d/new; test -L /l && ls /l/",
                "oldnewnew\nold",
            ),
            shows(
                "a directory, then a symlink to the host, then a file, in three layers",
                vec![
                    a().dir("l").file("l/kept", "x").end(),
                    a().symlink("l", host).end(),
                    a().file("l/secret", "mine").end(),
                ],
                "ls /l/; cat /l/secret",
                "secret\nmine",
            ),
            shows(
                "chain of symlinks of two layers, a file through it in a third",
                vec![
                    a().symlink("one", "two").end(),
                    a().symlink("two", host).end(),
                    a().file("one/inside/f", "mine").end(),
                ],
                "cat /one/inside/f; test -e /one/secret || echo no secret",
                "mineno secret",
            ),
            shows(
                "a directory of the layer above takes the symlink's place",
                vec![a().symlink("l", host).end(), a().dir("l").file("l/secret", "mine").end()],
                "test -d /l -a ! -L /l && cat /l/secret",
                "mine",
            ),
            refused(
                "a symlink to itself below, a file through it above",
                vec![a().symlink("l", "l").end(), a().file("l/f", "x").end()],
                &["entry `l`", "symlinks follow each other"],
            ),
            shows(
                "a symlink into another process's root, a file through it above",
                vec![
                    a().symlink("l", format!("/proc/1/root{host}")).end(),
                    a().file("l/kiln-evil", "x").end(),
                ],
                "cat /l/kiln-evil 2>/dev/null || echo nothing there",
                "nothing there",
            ),
            shows(
                "a symlink to a file of the host",
                vec![a().symlink("l", format!("{host}/secret")).end()],
                "cat /l 2>/dev/null || echo nothing there",
                "nothing there",
            ),
            shows(
                "writing through a symlink to the host",
                vec![a().symlink("l", host).symlink("m", format!("{host}/secret")).end()],
                "mkdir -p $(readlink /l); echo x > /m; echo y > /l/kiln-evil; cat /m /l/kiln-evil",
                "x\ny",
            ),
            refused("an empty symlink", vec![a().symlink("l", "").end()], &["`l`", "is empty"]),
        ]
    });
}

#[test]
fn heavy_hardlinks_name_only_what_the_image_has() {
    run(|host| {
        let secret = format!("{host}/secret");
        let up = format!("../../../../../../..{secret}");
        vec![
            refused(
                "hardlink to a file of the host",
                vec![a().hardlink("h", &secret).end()],
                &["entry `h`", "neither an earlier entry of this layer nor in the layers below"],
            ),
            refused(
                "hardlink upwards to a file of the host",
                vec![a().hardlink("h", &up).end()],
                &["entry `h`", "has a `..` component"],
            ),
            refused(
                "hardlink to a file of the host and a second entry that fills it",
                vec![a().hardlink("h", &secret).file("h", "x").hardlink("i", &secret).end()],
                &["entry `i`", "neither an earlier entry of this layer nor in the layers below"],
            ),
            shows(
                "hardlink to a symlink to a file of the host",
                vec![a().symlink("l", &secret).hardlink("h", "l").end()],
                "test -L /h && (cat /h 2>/dev/null || echo nothing there)",
                "nothing there",
            ),
            shows(
                "neighbour: hardlink to a file of its layer",
                vec![a().file("f", "one").hardlink("h", "f").hardlink("i", "/h").end()],
                "cat /h /i; stat -c %h /f",
                "oneone3",
            ),
            refused(
                "hardlink to itself",
                vec![a().hardlink("h", "h").end()],
                &["entry `h`", "is the entry itself"],
            ),
            refused(
                "hardlink to what is below it",
                vec![a().hardlink("h", "h/x").end()],
                &["entry `h`", "lies below it"],
            ),
            refused(
                "hardlink to what comes later",
                vec![a().hardlink("h", "later").file("later", "x").end()],
                &["entry `h`", "neither an earlier entry"],
            ),
            refused(
                "hardlink to a directory",
                vec![a().dir("d").hardlink("h", "d").end()],
                &["entry `h`", "`d` is a directory"],
            ),
            refused(
                "hardlink to a directory below",
                vec![a().dir("d").end(), a().hardlink("h", "d").end()],
                &["entry `h`", "`d` is a directory"],
            ),
            refused(
                "hardlink to the root",
                vec![a().hardlink("h", "/").end()],
                &["entry `h`", "is the root directory"],
            ),
            refused(
                "hardlink to a whiteout",
                vec![a().file(".wh.x", "").hardlink("h", ".wh.x").end()],
                &["entry `h`", "is a whiteout"],
            ),
            shows(
                "neighbour: hardlink to a file below, then the name is removed",
                vec![a().file("f", "one").end(), a().hardlink("h", "f").file(".wh.f", "").end()],
                "cat /h; test -e /f || echo gone",
                "onegone",
            ),
            shows(
                "hardlinks across two layers below",
                vec![
                    a().file("f", "one").end(),
                    a().hardlink("g", "f").end(),
                    a().hardlink("h", "g").end(),
                ],
                "cat /f /g /h; echo two > /h; cat /f /g /h",
                "oneoneoneoneonetwo",
            ),
            refused(
                "hardlink through a symlink below to a file of the host",
                vec![a().symlink("l", host).end(), a().hardlink("h", "l/secret").end()],
                &["entry `h`", "neither an earlier entry"],
            ),
            shows(
                "neighbour: hardlink through a symlink below to a file of the image",
                vec![a().symlink("l", "etc").end(), a().hardlink("h", "l/passwd").end()],
                "cmp /h /etc/passwd && echo same",
                "same",
            ),
            refused(
                "a file through a hardlink",
                vec![a().file("f", "").hardlink("h", "f").file("h/kiln-evil", "").end()],
                &["`h/kiln-evil`", "`h` is not a directory in this layer"],
            ),
            shows(
                "a symlink is linked, then replaced, then written through",
                vec![a().symlink("l", &secret).hardlink("h", "l").file("h", "mine").end()],
                "test -L /l && test -f /h && cat /h",
                "mine",
            ),
        ]
    });
}
