//! The contents of a sandbox's `/etc/resolv.conf` and `/etc/hosts`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// The `/etc/resolv.conf` of a sandbox: `host` is the host's own, `resolved` that of systemd-resolved
/// (`/run/systemd/resolve/resolv.conf`) where it exists.
///
/// A name server on the host's loopback cannot be reached from a sandbox: those of `resolved` then
/// take its place. Servers with IPv6 addresses are left out, since the sandbox network has IPv4 only.
/// `search`, `domain`, `sortlist` and `options` stay. If no server is left, a comment says so.
pub fn resolv_conf(host: &str, resolved: Option<&str>) -> String {
    let mut servers = reachable(host);
    if name_servers(host).any(|server| server.is_loopback()) {
        servers.extend(resolved.map(reachable).unwrap_or_default());
    }
    let mut seen = Vec::new();
    let mut text = String::new();
    for server in servers {
        if !seen.contains(&server) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "nameserver {server}");
            seen.push(server);
        }
    }
    if seen.is_empty() {
        text.push_str("# The host has no name server that can be reached from here.\n");
    }
    for line in host.lines().map(str::trim) {
        let keyword = line.split_whitespace().next();
        if matches!(keyword, Some("search" | "domain" | "sortlist" | "options")) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The `/etc/hosts` of a sandbox. Without an address its name stands for the loopback.
pub fn hosts_file(hostname: &str, address: Option<Ipv4Addr>) -> String {
    let own = address.unwrap_or(Ipv4Addr::LOCALHOST);
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}\t{hostname}\n")
}

fn reachable(text: &str) -> Vec<Ipv4Addr> {
    let usable = |server| match server {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        _ => None,
    };
    name_servers(text).filter_map(usable).collect()
}

fn name_servers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address =
            words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // `fe80::1%eth0`: the zone means nothing elsewhere.
        address.split('%').next()?.parse().ok()
    })
}
