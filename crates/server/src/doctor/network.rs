//! Whether the host's own network lets the sandboxes' pass. Nothing is changed; what a firewall's
//! single rules say is not examined, only its policy, and whether its rules know the interfaces.

use std::net::Ipv4Addr;

use kiln_runtime::host::{POOL, POOL_PREFIX};
use kiln_types::api::Check;
use serde_json::Value;

use super::program::{find, output};
use super::{degraded, missing, ok, read};

/// What the names of all sandboxes' interfaces start with.
const INTERFACES: &str = "kiln";

pub(super) fn forwarding() -> Check {
    const NAME: &str = "network";
    match read("/proc/sys/net/ipv4/ip_forward").as_deref() {
        Some("0") => degraded(
            NAME,
            "IPv4 forwarding is off; the daemon turns it on when it starts",
            "to keep it on: `sysctl net.ipv4.ip_forward=1`",
        ),
        Some(_) => ok(NAME, "IPv4 forwarding is on"),
        None => missing(NAME, "the kernel has no IPv4", "use a kernel with IPv4"),
    }
}

pub(super) fn firewall() -> Check {
    const NAME: &str = "firewall";
    let mut looked_at = Vec::new();
    let asked = find("nft").and_then(|nft| Some((output(&nft, &["-j", "list", "chains"])?, nft)));
    if let Some((chains, nft)) = asked {
        looked_at.push("nftables");
        for chain in dropping(&chains) {
            let rules = output(&nft, &["list", "table", &chain.family, &chain.table]);
            if !rules.is_some_and(|rules| rules.contains(&format!("\"{INTERFACES}"))) {
                return degraded(NAME, chain.detail(), chain.hint());
            }
        }
    }
    // What the older iptables has set up is not seen by nftables.
    let legacy = read("/proc/net/ip_tables_names").is_some_and(|tables| tables.contains("filter"));
    let iptables = find("iptables-legacy").or_else(|| find("iptables"));
    let iptables = iptables.filter(|_| legacy || looked_at.is_empty());
    if let Some(rules) = iptables.and_then(|iptables| output(&iptables, &["-S", "FORWARD"])) {
        looked_at.push("iptables");
        if rules.contains("-P FORWARD DROP") && !rules.contains(&format!(" {INTERFACES}")) {
            let chain = Chain::new("ip", "filter", "FORWARD");
            return degraded(NAME, chain.detail(), chain.hint());
        }
    }
    if looked_at.is_empty() {
        return ok(
            NAME,
            "not examined: neither `nft` nor `iptables` is installed and may be asked",
        );
    }
    ok(NAME, format!("no policy of {} keeps sandboxes from their way out", looked_at.join(" or ")))
}

pub(super) fn addresses() -> Check {
    const NAME: &str = "addresses";
    let pool = Network { address: POOL, prefix: POOL_PREFIX };
    let routes = read("/proc/net/route").unwrap_or_default();
    let taken: Vec<String> = routes
        .lines()
        .skip(1)
        .filter_map(Route::parse)
        .filter(|route| route.network.prefix > 0 && route.network.overlaps(pool))
        .filter(|route| !route.interface.starts_with(INTERFACES))
        .map(|route| format!("{} by {}", route.network, route.interface))
        .collect();
    if taken.is_empty() {
        return ok(NAME, format!("{pool} is free for sandboxes"));
    }
    degraded(
        NAME,
        format!(
            "sandboxes have addresses of {pool}, but the host has routes there: {}",
            taken.join(", ")
        ),
        "sandboxes do not reach those hosts; give that network other addresses, or create sandboxes elsewhere",
    )
}

/// A chain that forwarded packets do not leave unless a rule accepts them.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    family: String,
    table: String,
    name: String,
}

impl Chain {
    fn new(family: &str, table: &str, name: &str) -> Self {
        Self { family: family.to_owned(), table: table.to_owned(), name: name.to_owned() }
    }

    fn detail(&self) -> String {
        let Self { family, table, name } = self;
        format!(
            "the policy of chain {name} in table {family} {table} is to drop what is forwarded, and none of \
             the table's rules knows the interfaces {INTERFACES}*: sandboxes have no way out"
        )
    }

    fn hint(&self) -> String {
        let Self { family, table, name } = self;
        if (family.as_str(), table.as_str(), name.as_str()) == ("ip", "filter", "FORWARD") {
            return format!(
                "`iptables -I FORWARD -i {INTERFACES}+ -j ACCEPT` and `iptables -I FORWARD -o {INTERFACES}+ -j ACCEPT`"
            );
        }
        let insert = format!("nft insert rule {family} {table} {name}");
        format!(
            "`{insert} iifname \"{INTERFACES}*\" accept` and `{insert} oifname \"{INTERFACES}*\" accept`"
        )
    }
}

/// The chains for forwarded IPv4 packets whose policy is to drop, from `nft -j list chains`.
fn dropping(chains: &str) -> Vec<Chain> {
    let parsed: Value = serde_json::from_str(chains).unwrap_or_default();
    let objects = parsed["nftables"].as_array().cloned().unwrap_or_default();
    let chains = objects.iter().map(|object| &object["chain"]);
    chains
        .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop")
        .filter_map(|chain| {
            let text = |key| chain[key].as_str();
            Some(Chain::new(text("family")?, text("table")?, text("name")?))
        })
        .filter(|chain| matches!(chain.family.as_str(), "ip" | "inet"))
        .collect()
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: Ipv4Addr,
    prefix: u8,
}

impl Network {
    fn overlaps(self, other: Self) -> bool {
        let shorter = u32::from(self.prefix.min(other.prefix));
        let differ = self.address.to_bits() ^ other.address.to_bits();
        differ.leading_zeros() >= shorter
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// One line of `/proc/net/route`.
#[derive(Debug)]
struct Route {
    interface: String,
    network: Network,
}

impl Route {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // As the machine holds them, in network byte order.
        let number = |text: &str| Some(u32::from_be(u32::from_str_radix(text, 16).ok()?));
        let [interface, destination, mask] = [fields.first()?, fields.get(1)?, fields.get(7)?];
        let network = Network {
            address: Ipv4Addr::from_bits(number(destination)?),
            prefix: number(mask)?.leading_ones() as u8,
        };
        Some(Self { interface: (*interface).to_owned(), network })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_that_drop_are_found() {
        let chain = |family: &str, hook: &str, policy: &str| {
            format!(
                r#"{{"chain": {{"family": "{family}", "table": "filter", "name": "FORWARD", "handle": 2,
                "type": "filter", "hook": "{hook}", "prio": 0, "policy": "{policy}"}}}}"#
            )
        };
        for (family, hook, policy, found) in [
            ("ip", "forward", "drop", 1),
            ("inet", "forward", "drop", 1),
            ("ip6", "forward", "drop", 0),
            ("ip", "input", "drop", 0),
            ("ip", "forward", "accept", 0),
        ] {
            let chain = chain(family, hook, policy);
            let listing = format!(
                r#"{{"nftables": [{{"metainfo": {{}}}}, {chain}, {{"chain": {{"name": "user"}}}}]}}"#
            );
            assert_eq!(dropping(&listing).len(), found, "{family} {hook} {policy}");
        }
        assert_eq!(dropping("not JSON"), []);
        assert!(Chain::new("ip", "filter", "FORWARD").hint().contains("-i kiln+"));
        assert!(Chain::new("inet", "fw", "fwd").hint().contains("inet fw fwd iifname \"kiln*\""));
    }

    #[test]
    fn routes_overlap_or_do_not() {
        let pool = Network { address: POOL, prefix: POOL_PREFIX };
        for (line, network, overlaps) in [
            ("eth0 0000D40A 00000000 0001 0 0 0 0000FFFF 0 0 0", "10.212.0.0/16", true),
            ("tun0 0000000A 00000000 0001 0 0 0 000000FF 0 0 0", "10.0.0.0/8", true),
            ("wg0 0100D70A 00000000 0001 0 0 0 FFFFFFFF 0 0 0", "10.215.0.1/32", true),
            ("eth0 0000D80A 00000000 0001 0 0 0 0000FFFF 0 0 0", "10.216.0.0/16", false),
            ("eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0", "0.0.0.0/0", true),
        ] {
            let route = Route::parse(line).unwrap();
            assert_eq!(route.network.to_string(), network);
            assert_eq!(route.network.overlaps(pool), overlaps, "{line}");
        }
        for line in ["", "Iface Destination Gateway", "eth0 xyz 0 0 0 0 0 0"] {
            assert!(Route::parse(line).is_none(), "{line}");
        }
    }
}
