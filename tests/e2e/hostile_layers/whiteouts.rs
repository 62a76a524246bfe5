//! Whiteouts and opaque directories.

use kiln_adversary::{Archive, Header};

use super::{refused, run, shows};

fn a() -> Archive {
    Archive::new()
}

#[test]
fn heavy_whiteouts_hide_only_what_the_image_has() {
    run(|host| {
        let busybox = std::fs::read("/bin/busybox").unwrap();
        let nothing = "names nothing that a layer can hide";
        vec![
            refused("of dot-dot", vec![a().file(".wh...", "").end()], &["`.wh...`", nothing]),
            refused("of dot", vec![a().file(".wh..", "").end()], &["`.wh..`", nothing]),
            refused("of nothing", vec![a().file("etc/.wh.", "").end()], &["`etc/.wh.`", nothing]),
            refused(
                "of dot-dot in a directory",
                vec![a().file("etc/.wh...", "").end()],
                &["`etc/.wh...`", nothing],
            ),
            refused(
                "of nothing, as a directory",
                vec![a().dir(".wh./").end()],
                &["`.wh./`", nothing],
            ),
            refused(
                "with something below it",
                vec![a().file(".wh./kiln-evil", "").end()],
                &["`.wh./kiln-evil`", "is not a directory in this layer"],
            ),
            refused(
                "below dot-dot",
                vec![a().file("etc/../../.wh.tmp", "").end()],
                &["`etc/../../.wh.tmp`", "`..` component"],
            ),
            shows(
                "neighbour: of a file and of a directory, whatever type the mark has",
                vec![
                    a().dir("d").file("d/x", "").dir("e").file("e/x", "").end(),
                    a().file(".wh.d", "data").dir(".wh.e/").symlink("etc/.wh.group", host).end(),
                ],
                "ls -d /d /e /etc/group 2>/dev/null; ls /etc",
                "hostname\nhosts\npasswd\nresolv.conf",
            ),
            shows(
                "of names that are not there",
                vec![a().file(".wh.nothing", "").file("new/.wh.nothing", "").end()],
                "ls -A /new; echo $?",
                "0",
            ),
            shows(
                "of a name that the layer has, too",
                vec![
                    a().dir("d").file("d/old", "").file("f", "old").end(),
                    a().file("f", "new").file(".wh.f", "").file(".wh.d", "").dir("d").end(),
                ],
                "cat /f; ls -A /d",
                "new",
            ),
            shows(
                "through a symlink below that leads to the host",
                vec![
                    a().symlink("l", host).end(),
                    a().file("l/.wh.secret", "").file("l/inside/.wh..wh..opq", "").end(),
                ],
                "ls -A /l/ /l/inside/ | grep -c secret; true",
                "0",
            ),
            shows(
                "neighbour: through a symlink below that leads to a directory",
                vec![a().symlink("l", "etc").end(), a().file("l/.wh.passwd", "").end()],
                "test -e /etc/passwd || echo gone; test -L /l && echo link",
                "gone\nlink",
            ),
            shows(
                "opaque root",
                vec![
                    a().file(".wh..wh..opq", "")
                        .entry(Header::new(b'0', "bin/sh").mode(0o755), &busybox)
                        .end(),
                ],
                "echo /bin/* /etc/passwd* /root*",
                "/bin/sh /etc/passwd* /root*",
            ),
            shows(
                "opaque directory, and the same as an ordinary name elsewhere",
                vec![
                    a().dir("d").file("d/old", "").end(),
                    a().file("d/.wh..wh..opq", "").file("d/new", "").end(),
                    a().file("d/newer", "").end(),
                ],
                "ls -A /d",
                "new\nnewer",
            ),
            refused(
                "below an opaque mark",
                vec![a().file("d/.wh..wh..opq/kiln-evil", "").end()],
                &["kiln-evil", "is not a directory in this layer"],
            ),
            refused(
                "opaque below a file",
                vec![a().file("f", "").file("f/.wh..wh..opq", "").end()],
                &["`f/.wh..wh..opq`", "`f` is not a directory"],
            ),
            shows(
                "opaque where nothing is",
                vec![a().file("n/e/w/.wh..wh..opq", "").end()],
                "find /n",
                "/n\n/n/e\n/n/e/w",
            ),
            shows(
                "bookkeeping of AUFS",
                vec![
                    a().file(".wh..wh.aufs", "")
                        .dir(".wh..wh.plnk")
                        .file(".wh..wh.plnk/1.2", "x")
                        .hardlink(".wh..wh.orph", format!("{host}/secret"))
                        .end(),
                ],
                "ls -A / | grep -c wh; true",
                "0",
            ),
        ]
    });
}
