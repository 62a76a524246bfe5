//! Device nodes, xattrs, modes.

use kiln_adversary::{Archive, Header};

use super::{refused, run, shows};

fn a() -> Archive {
    Archive::new()
}

/// A version 2 file capability: `cap_net_raw+ep`.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\x00\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// `u::rw-,g::r--,o::r--`.
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x04\0\x04\0\xff\xff\xff\xff\
                     \x20\0\x04\0\xff\xff\xff\xff";

#[test]
fn heavy_device_nodes_are_dropped() {
    run(|_| {
        vec![
            shows(
                "block and character devices",
                vec![
                    a().file("disk", "below").end(),
                    a().device(b'4', "disk", 8, 0)
                        .device(b'3', "mem", 1, 1)
                        .device(b'4', "vda", 254, 0)
                        .end(),
                ],
                "ls -d /disk /mem /vda 2>/dev/null; find / -xdev -type b | wc -l",
                "0",
            ),
            shows(
                "what overlayfs takes for a whiteout",
                vec![a().file("f", "below").end(), a().device(b'3', "f", 0, 0).end()],
                "cat /f",
                "below",
            ),
            shows(
                "a device where a directory is below",
                vec![a().dir("d").file("d/x", "1").end(), a().device(b'3', "d", 1, 3).end()],
                "ls -d /d 2>/dev/null || echo gone",
                "gone",
            ),
            refused(
                "entries below a device",
                vec![a().device(b'3', "c", 1, 3).file("c/kiln-evil", "").end()],
                &["`c/kiln-evil`", "`c` is not a directory in this layer"],
            ),
            refused(
                "a device number out of range",
                vec![a().device(b'3', "c", 4096, 0).end()],
                &["`c`", "device number"],
            ),
            shows(
                "neighbour: a named pipe",
                vec![a().fifo("p").end()],
                "test -p /p && (echo through > /p & cat /p)",
                "through",
            ),
        ]
    });
}

#[test]
fn heavy_xattrs_reach_neither_overlayfs_nor_the_host() {
    let with = |name: &str, value: &[u8], rest: Archive| {
        a().pax(&[(format!("SCHILY.xattr.{name}"), value)]).raw(&rest.unfinished()).end()
    };
    run(|host| {
        let below = || a().dir("d").file("d/below", "1").dir("e").file("e/f", "2").end();
        let both = |name: &str, value: &[u8]| with(name, value, a().dir("d").file("d/above", "3"));
        let all = "ls -A /d";
        let mut cases = vec![
            refused(
                "a malformed capability",
                vec![with("security.capability", b"\x01\0\0\x02", a().file("f", ""))],
                &["`f`", "security.capability"],
            ),
            refused(
                "a capability of an unknown version",
                vec![with("security.capability", &[9; 20], a().file("f", ""))],
                &["`f`", "security.capability"],
            ),
            shows(
                "neighbour: a capability",
                vec![with(
                    "security.capability",
                    CAPABILITY,
                    a().entry(Header::new(b'0', "run").mode(0o755), b"#!/bin/sh\necho ran\n"),
                )],
                "/run",
                "ran",
            ),
            refused(
                "a malformed access control list",
                vec![with("system.posix_acl_access", b"\x02\0\0\0junk", a().file("f", ""))],
                &["`f`", "system.posix_acl_access"],
            ),
            refused(
                "an access control list of an unknown version",
                vec![with("system.posix_acl_access", b"\x03\0\0\0", a().file("f", ""))],
                &["`f`", "system.posix_acl_access"],
            ),
            refused(
                "a default access control list of a file",
                vec![with("system.posix_acl_default", ACL, a().file("f", ""))],
                &["`f`", "system.posix_acl_default"],
            ),
            shows(
                "neighbour: an access control list",
                vec![with("system.posix_acl_access", ACL, a().file("f", "fine"))],
                "cat /f",
                "fine",
            ),
            shows(
                "xattrs of unknown name spaces, and one without a name",
                vec![with("nonsense", b"1", a().dir("d")), with("user.", b"", a().file("f", "1"))],
                "cat /f",
                "1",
            ),
            refused(
                "xattrs beyond the limit",
                vec![with("user.big", &vec![b'v'; 200 << 10], a().file("f", ""))],
                &["`f`", "`xattr_bytes`"],
            ),
            shows(
                "setuid and setgid",
                vec![
                    a().entry(Header::new(b'0', "u").mode(0o4755), b"")
                        .entry(Header::new(b'0', "g").mode(0o2755).owner(1000, 2000), b"")
                        .entry(Header::new(b'5', "d").mode(0o1777), b"")
                        .end(),
                ],
                "stat -c '%a %u:%g' /u /g /d",
                "4755 0:0\n2755 1000:2000\n1777 0:0",
            ),
            shows(
                "owners that no user name space of the host has",
                vec![a().pax(&[("uid", "4294967294"), ("gid", "4294967294")]).file("f", "x").end()],
                "ls -d /f",
                "/f",
            ),
        ];
        for (name, value) in [
            ("trusted.overlay.opaque", &b"y"[..]),
            ("trusted.overlay.opaque", b"x"),
            ("trusted.overlay.redirect", b"/e"),
            ("trusted.overlay.metacopy", b""),
            ("trusted.overlay.origin", b"\0\xfb\x21"),
            ("trusted.overlay.whiteout", b""),
            ("user.overlay.opaque", b"y"),
            ("user.overlay.redirect", b"/e"),
            ("user.overlay.origin", b""),
        ] {
            cases.push(shows(
                "a mark of overlayfs on a directory",
                vec![below(), both(name, value)],
                all,
                "above\nbelow",
            ));
        }
        for (name, value) in [
            ("trusted.overlay.metacopy", &b""[..]),
            ("trusted.overlay.redirect", host.as_bytes()),
            ("user.overlay.metacopy", b""),
            ("user.overlay.whiteout", b"y"),
        ] {
            cases.push(shows(
                "a mark of overlayfs on a file",
                vec![below(), with(name, value, a().file("e/f", "mine"))],
                "cat /e/f",
                "mine",
            ));
        }
        cases
    });
}
