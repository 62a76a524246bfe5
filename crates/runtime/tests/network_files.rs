//! The files that tell a sandbox about its network.

use std::net::Ipv4Addr;

use kiln_runtime::network::{hosts_file, resolv_conf};

#[test]
fn resolv_conf_names_servers_that_can_be_reached() {
    let resolved =
        "# comment\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch ignored.test\n";
    let cases: [(&str, &str, Option<&str>, &str); 8] = [
        ("plain", "nameserver 192.0.2.1\n", None, "nameserver 192.0.2.1\n"),
        (
            "search and options stay",
            "# by hand\nsearch a.test b.test\n  nameserver   192.0.2.1  \noptions ndots:2\n",
            None,
            "nameserver 192.0.2.1\nsearch a.test b.test\noptions ndots:2\n",
        ),
        (
            "a local stub gives way",
            "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n",
            Some(resolved),
            "nameserver 192.0.2.53\noptions edns0 trust-ad\nsearch lan\n",
        ),
        ("::1 is local too", "nameserver ::1\n", Some(resolved), "nameserver 192.0.2.53\n"),
        (
            "no stub, no resolved",
            "nameserver 192.0.2.1\n",
            Some(resolved),
            "nameserver 192.0.2.1\n",
        ),
        (
            "IPv6 servers are out of reach",
            "nameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver 192.0.2.1\n",
            None,
            "nameserver 192.0.2.1\n",
        ),
        (
            "nothing is left",
            "nameserver 127.0.0.1\n",
            None,
            "# The host has no name server that can be reached from here.\n",
        ),
        (
            "nonsense is no server",
            "nameserver\nnameserver example.test\nnameservers 192.0.2.1\n",
            None,
            "# The host has no name server that can be reached from here.\n",
        ),
    ];
    for (name, host, resolved, expected) in cases {
        assert_eq!(resolv_conf(host, resolved), expected, "{name}");
    }
}

#[test]
fn hosts_file_names_the_sandbox() {
    let address = Ipv4Addr::new(10, 212, 0, 2);
    let lines = hosts_file("box", Some(address));
    assert!(lines.lines().any(|line| line == "10.212.0.2\tbox"), "{lines}");
    assert!(lines.lines().any(|line| line == "127.0.0.1\tlocalhost"), "{lines}");
    assert!(hosts_file("box", None).contains("127.0.0.1\tbox\n"));
}
