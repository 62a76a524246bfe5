//! Names that change their type, in one layer and between layers, and names that come twice.

use kiln_adversary::Archive;

use super::{fails, refused, run, shows};

fn a() -> Archive {
    Archive::new()
}

#[test]
fn heavy_a_name_is_what_it_became_last() {
    run(|host| {
        vec![
            shows(
                "directory, symlink to the host, file, directory again, in four layers",
                vec![
                    a().dir("t").file("t/x", "1").dir("t/inside").end(),
                    a().symlink("t", host).end(),
                    a().file("t", "3").end(),
                    a().dir("t").file("t/y", "4").end(),
                ],
                "ls -A /t; cat /t/y",
                "y\n4",
            ),
            shows(
                "directory to symlink to the host, and back by an implied directory",
                vec![
                    a().dir("t").file("t/secret", "1").end(),
                    a().symlink("t", host).end(),
                    a().file("t/inside/g", "3").end(),
                ],
                "test -L /t; cat /t/inside/g; cat /t/secret 2>/dev/null || echo no secret",
                "3no secret",
            ),
            refused(
                "entries below what is a file in the layer below",
                vec![a().file("t", "1").end(), a().file("t/x", "2").end()],
                &["entry `t`", "not a directory there"],
            ),
            shows(
                "neighbour: the directory is described",
                vec![a().file("t", "1").end(), a().dir("t").file("t/x", "2").end()],
                "cat /t/x",
                "2",
            ),
            refused(
                "entries below a file",
                vec![a().file("t", "1").file("t/x", "2").end()],
                &["`t/x`", "`t` is not a directory in this layer"],
            ),
            refused(
                "entries below a fifo",
                vec![a().fifo("t").file("t/x", "2").end()],
                &["`t/x`", "`t` is not a directory in this layer"],
            ),
            shows(
                "a file twice",
                vec![a().file("t", "first").file("t", "second").end()],
                "cat /t",
                "second",
            ),
            shows(
                "a file, then a directory",
                vec![a().file("t", "1").dir("t").file("t/x", "2").end()],
                "cat /t/x",
                "2",
            ),
            shows(
                "a directory with files, then a file",
                vec![a().dir("t").file("t/x", "1").file("t", "2").end()],
                "cat /t",
                "2",
            ),
            shows(
                "a directory, then a symlink to the host, then a file through it",
                vec![a().dir("t").file("t/x", "1").symlink("t", host).file("t/y", "2").end()],
                "test -L /t; ls -A /t/; cat /t/y",
                "y\n2",
            ),
            shows(
                "neighbour: a symlink to the host, then a directory, then a file in it",
                vec![a().symlink("t", host).dir("t").file("t/secret", "mine").end()],
                "test -d /t -a ! -L /t && cat /t/secret",
                "mine",
            ),
            shows(
                "a symlink to the host, then a file of its name",
                vec![a().symlink("t", format!("{host}/secret")).file("t", "mine").end()],
                "test ! -L /t && cat /t",
                "mine",
            ),
            shows(
                "a directory twice keeps what it holds",
                vec![a().dir("t").file("t/x", "1").dir("t/").end()],
                "cat /t/x",
                "1",
            ),
            shows(
                "a hardlink to a file that is replaced keeps the old content",
                vec![a().file("f", "old").hardlink("h", "f").file("f", "new").end()],
                "cat /f /h",
                "newold",
            ),
            shows(
                "a whiteout and the name, in both orders",
                vec![
                    a().file("f", "1").file("g", "1").end(),
                    a().file(".wh.f", "").file("f", "2").file("g", "2").file(".wh.g", "").end(),
                ],
                "cat /f /g",
                "22",
            ),
            fails(
                "a symlink to the host where devices go",
                vec![a().symlink("dev", host).end()],
                "/dev",
            ),
            shows(
                "a symlink where processes are shown",
                vec![a().symlink("proc", "etc").end()],
                "test -d /proc/self && echo fine",
                "fine",
            ),
            fails(
                "a symlink to the root where devices are shown",
                vec![a().symlink("sys", "/").end()],
                "/dev",
            ),
            shows(
                "symlinks where files of the runtime go",
                vec![
                    a().symlink("run", host)
                        .symlink("etc/hosts", format!("{host}/secret"))
                        .symlink("etc/resolv.conf", format!("{host}/secret"))
                        .symlink("etc/hostname", "/proc/1/root/etc/hostname")
                        .end(),
                ],
                "cat /etc/hosts >/dev/null && (echo x > /etc/hosts) 2>/dev/null; echo fine",
                "fine",
            ),
        ]
    });
}
