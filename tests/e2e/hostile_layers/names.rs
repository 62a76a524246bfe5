//! Names of every shape, and order within a layer.

use kiln_adversary::{Archive, Header};

use super::{refused, run, shows};

fn a() -> Archive {
    Archive::new()
}

#[test]
fn heavy_names_stay_in_the_root() {
    run(|host| {
        let long = |len: usize| "n".repeat(len);
        let deep = |depth: usize| "d/".repeat(depth) + "f";
        // 16 components of 250 bytes and their slashes, and what fills up to the limit.
        let path = |len: usize| {
            let parts = vec![long(250); len / 251].join("/");
            let rest = len - parts.len() - 1;
            format!("{parts}/{}", long(rest))
        };
        let pax_name = |name: &[u8]| a().pax(&[("path", name)]).file("x", "x").end();
        vec![
            refused(
                "dot-dot in front",
                vec![a().file(format!("../../../../../..{host}/kiln-evil"), "x").end()],
                &["kiln-evil", "`..` component"],
            ),
            refused(
                "dot-dot in the middle",
                vec![a().dir("a").file("a/../../kiln-evil", "x").end()],
                &["`a/../../kiln-evil`", "`..` component"],
            ),
            refused(
                "dot-dot that stays inside",
                vec![a().dir("a").file("a/../b", "x").end()],
                &["`a/../b`", "`..` component"],
            ),
            refused(
                "dot-dot in a PAX path",
                vec![pax_name(b"../kiln-evil")],
                &["`../kiln-evil`", "`..` component"],
            ),
            refused(
                "dot-dot in a GNU long name",
                vec![a().gnu_long(b'L', "a/../../kiln-evil").file("x", "x").end()],
                &["`a/../../kiln-evil`", "`..` component"],
            ),
            refused(
                "dot-dot in the prefix field",
                vec![a().entry(Header::new(b'0', "kiln-evil").bytes(345, b"../.."), b"").end()],
                &["`../../kiln-evil`", "`..` component"],
            ),
            shows(
                "an absolute name is a name below the root",
                vec![a().file(format!("{host}/secret"), "mine").file("//tmp//kiln-evil", "").end()],
                "cat /tmp/kiln-canary-*/secret; ls /tmp | grep kiln-evil",
                "minekiln-evil",
            ),
            shows(
                "neighbour: names with dots, slashes and spaces",
                vec![
                    a().dir("./")
                        .dir(".//d/./")
                        .file("././d//f", "1")
                        .file("..f", "2")
                        .file("...", "3")
                        .file("d/..g", "4")
                        .file(" ", "5")
                        .file("\n", "6")
                        .file("\u{1b}[2J", "7")
                        .file(b"\xff\xfe", "8")
                        .file("-rf", "9")
                        .end(),
                ],
                "cat /d/f /d/..g; \
                 find / -maxdepth 1 -type f -exec sh -c 'cat \"$1\"; echo' _ {} \\; | sort | tr -d '\\n'",
                "142356789",
            ),
            refused("an empty name", vec![a().file("", "x").end()], &["``", "it is empty"]),
            refused(
                "the root as a file",
                vec![a().file("./", "").file(".", "x").end()],
                &["`.`", "names the root"],
            ),
            refused(
                "the root as a symlink",
                vec![a().symlink("/", host).end()],
                &["`/`", "names the root"],
            ),
            refused("NUL in a PAX path", vec![pax_name(b"a\0b")], &["`a\\0b`", "NUL"]),
            shows(
                "a component of 255 bytes, and a whiteout of one",
                vec![
                    a().file(long(255), "x").end(),
                    a().file(format!(".wh.{}", long(255)), "").file("m".repeat(255), "y").end(),
                ],
                "ls / | grep -c nnnnn; cat /mmmmm*",
                "0\ny",
            ),
            refused(
                "a component of 256 bytes",
                vec![a().file(long(256), "x").end()],
                &["nnnn", "longer than 255 bytes"],
            ),
            shows(
                "a path of 4000 bytes",
                vec![a().file(path(4000), "x").end()],
                "cd /; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do cd n*; done; cat n*",
                "x",
            ),
            refused(
                "a path beyond PATH_MAX",
                vec![a().file(path(4097), "x").end()],
                &["nnnn", "path is longer than 4096", "`path_bytes`"],
            ),
            shows(
                "200 directories",
                vec![a().file(deep(200), "x").end()],
                "cd /; for i in $(seq 200); do cd d; done; cat f",
                "x",
            ),
            refused(
                "300 directories",
                vec![a().file(deep(300), "x").end()],
                &["d/d/d", "chain of directories is longer than 256", "`depth`"],
            ),
            refused(
                "a symlink target beyond PATH_MAX",
                vec![a().symlink("l", long(4096)).end()],
                &["`l`", "target is longer than 4095"],
            ),
            refused(
                "a message cannot move the cursor",
                vec![a().file("\u{1b}[2J\n../../x/../kiln-evil", "").end()],
                &["\\u{1b}[2J\\n", "`..` component"],
            ),
        ]
    });
}
