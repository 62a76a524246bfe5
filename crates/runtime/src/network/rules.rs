//! What the packets of sandboxes may do: one nftables table for each block.

use std::io;
use std::net::Ipv4Addr;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::NetworkError;
use super::netlink::{Refused, Request, Socket};
use super::nftables::{
    Expression as E, FORWARD, Hook, INPUT, POSTROUTING, PREROUTING, Protocol, batch, delete_table,
    new_chain, new_rule, new_table,
};
use super::reply::code;
use crate::host::{BLOCK_PREFIX, HostBlock, POOL, POOL_PREFIX};

const DNS: u16 = 53;
/// RFC 3927. Not to be forwarded by any router, and where clouds keep a machine's credentials.
const LINK_LOCAL: (Ipv4Addr, u8) = (Ipv4Addr::new(169, 254, 0, 0), 16);

/// Puts a block's table in force, in the place of the one that may be there.
pub(super) fn install(block: &HostBlock) -> Result<(), NetworkError> {
    let table = name(block);
    let installed = match commit(replace(&table, &rules(block))) {
        Err(error) if code(&error) == Some(libc::ENOENT) => {
            tracing::warn!(
                "this kernel's nftables have no `fib` for IPv4: that a sandbox cannot send under \
                 another one's address depends on net.ipv4.conf.all.rp_filter being 0 or 1"
            );
            let mut rules = rules(block);
            rules.retain(|(_, rule)| !rule.iter().any(|part| matches!(part, E::Forged)));
            commit(replace(&table, &rules))
        }
        other => other,
    };
    installed.map_err(|source| explain("install", &table, source))
}

fn replace(table: &str, rules: &[(Hook, Vec<E>)]) -> Vec<Request> {
    let mut requests = vec![new_table(table), delete_table(table), new_table(table)];
    let chains = [PREROUTING, INPUT, FORWARD, POSTROUTING];
    requests.extend(chains.map(|hook| new_chain(table, hook)));
    requests.extend(rules.iter().map(|(hook, rule)| new_rule(table, *hook, rule)));
    requests
}

/// Removes a block's table, if it is there.
pub(super) fn remove(block: &HostBlock) -> Result<(), NetworkError> {
    let table = name(block);
    match commit(vec![delete_table(&table)]) {
        Err(error) if code(&error) == Some(libc::ENOENT) => Ok(()),
        other => other.map_err(|source| explain("remove", &table, source)),
    }
}

/// The name of a block's table.
fn name(block: &HostBlock) -> String {
    format!("kiln{}", block.number())
}

fn rules(block: &HostBlock) -> Vec<(Hook, Vec<E>)> {
    // By interface, and not by address: a sandbox may forge the latter.
    let sandbox = || E::From(block.interface_prefix());
    let mine = (block.subnet(), BLOCK_PREFIX);
    let pool = (POOL, POOL_PREFIX);
    let to_dns = |protocol| vec![sandbox(), E::Protocol(protocol), E::Port(DNS), E::Accept];
    vec![
        // Forged senders. `rp_filter` does the same, but not where a host has loosened it for all
        // interfaces, as some distributions do; the second rule needs nothing of the kernel.
        (PREROUTING, vec![sandbox(), E::Forged, E::Drop]),
        (PREROUTING, vec![sandbox(), E::NotSource(mine.0, mine.1), E::Drop]),
        // To the host: answers, ICMP, and a name server that runs on it. Nothing else; the daemon's own
        // interface least of all.
        (INPUT, vec![sandbox(), E::Established, E::Accept]),
        (INPUT, vec![sandbox(), E::Protocol(Protocol::Icmp), E::Accept]),
        (INPUT, to_dns(Protocol::Udp)),
        (INPUT, to_dns(Protocol::Tcp)),
        (INPUT, vec![sandbox(), E::Reject]),
        // Between sandboxes: nothing. Into a sandbox from elsewhere: answers.
        (FORWARD, vec![sandbox(), E::Destination(pool.0, pool.1), E::Reject]),
        (FORWARD, vec![E::Destination(mine.0, mine.1), E::Established, E::Accept]),
        (FORWARD, vec![E::Destination(mine.0, mine.1), E::Reject]),
        // Some clouds' name servers have link-local addresses; nothing else of theirs is for guests.
        (FORWARD, to_dns(Protocol::Udp)),
        (FORWARD, to_dns(Protocol::Tcp)),
        (FORWARD, vec![sandbox(), E::Destination(LINK_LOCAL.0, LINK_LOCAL.1), E::Reject]),
        (
            POSTROUTING,
            vec![E::Source(mine.0, mine.1), E::NotDestination(pool.0, pool.1), E::Masquerade],
        ),
    ]
}

fn commit(requests: Vec<Request>) -> io::Result<()> {
    let mut socket = Socket::open(NETLINK_NETFILTER)?;
    socket.send(batch(requests)).map_err(|Refused { error, .. }| error)
}

/// A kernel without netfilter has no such protocol, one without nf_tables no such subsystem.
fn explain(action: &'static str, table: &str, source: io::Error) -> NetworkError {
    match code(&source) {
        Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP) => NetworkError::NoNftables { source },
        _ => NetworkError::Rules { action, table: table.into(), source },
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rtnetlink::sys::protocols::NETLINK_NETFILTER;
    use rustix::thread::UnshareFlags;

    use super::{explain, install, remove, rules};
    use crate::host::HostBlock;
    use crate::network::NetworkError;
    use crate::network::netlink::{Request, Socket};

    const GET_TABLE: u16 = 10 << 8 | 1;
    const GET_RULE: u16 = 10 << 8 | 7;

    /// How many there are in the thread's namespace.
    fn count(kind: u16) -> usize {
        let mut count = 0;
        let mut socket = Socket::open(NETLINK_NETFILTER).unwrap();
        socket.dump(Request::new(kind, 0, &[2, 0, 0, 0]), |_| count += 1).unwrap();
        count
    }

    #[test]
    fn tables_are_replaced_and_removed_one_by_one() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP nftables need root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let blocks = ["a", "b"].map(|name| {
            let data = directory.path().join(name);
            std::fs::create_dir(&data).unwrap();
            HostBlock::claim(&directory.path().join("blocks"), &data).unwrap()
        });
        let each = rules(&blocks[0]).len();
        let test = || {
            #[expect(
                deprecated,
                reason = "its only danger, unsharing the descriptors, is not used"
            )]
            rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
            let counts = || (count(GET_TABLE), count(GET_RULE));
            assert_eq!(counts(), (0, 0));
            for block in [&blocks[0], &blocks[1], &blocks[0]] {
                install(block).unwrap();
            }
            assert_eq!(counts(), (2, 2 * each));
            remove(&blocks[0]).unwrap();
            remove(&blocks[0]).unwrap();
            assert_eq!(counts(), (1, each));
            remove(&blocks[1]).unwrap();
            assert_eq!(counts(), (0, 0));
        };
        std::thread::scope(|scope| scope.spawn(test).join().unwrap());
    }

    #[test]
    fn a_kernel_without_nf_tables_is_named() {
        for (code, missing) in
            [(libc::EOPNOTSUPP, true), (libc::EPROTONOSUPPORT, true), (libc::EPERM, false)]
        {
            let error = explain("install", "kiln0", io::Error::from_raw_os_error(code));
            assert_eq!(matches!(error, NetworkError::NoNftables { .. }), missing, "{code}");
        }
    }
}
