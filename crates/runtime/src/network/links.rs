//! The route family's requests: links, addresses and routes of a sandbox.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage as Route;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{
    AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use super::netlink::{Request, Socket};
use super::reply::{attributes, text};

/// The name of the interface in a sandbox.
pub(super) const GUEST: &str = "eth0";
/// The index of `lo` in every network namespace.
pub(super) const LOOPBACK: u32 = 1;
/// The prefix length of a sandbox's link.
const PREFIX: u8 = 30;
const RTM_GETLINK: u16 = 18;
/// `IFLA_IFNAME`
const ATTR_NAME: u16 = 3;
/// The length of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;

/// A pair of interfaces: `name` here, [`GUEST`] in `netns`, without a moment in which it is elsewhere.
pub(super) fn add_pair(
    name: &str,
    netns: BorrowedFd<'_>,
    host: Ipv4Addr,
    guest: Ipv4Addr,
) -> Request {
    let peer = LinkUnspec::new_with_name(GUEST)
        .address(hardware_address(guest))
        .setns_by_fd(netns.as_raw_fd())
        .build();
    let pair = LinkVeth::new(name, GUEST)
        .address(hardware_address(host))
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    Request::route(Route::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL)
}

/// Removes an interface, and with it its peer.
pub(super) fn remove(name: &str) -> Request {
    let link = LinkMessageBuilder::<LinkUnspec>::new().name(name).build();
    Request::route(Route::DelLink(link), 0)
}

/// Brings an interface up.
pub(super) fn up(index: u32) -> Request {
    Request::route(Route::SetLink(LinkUnspec::new_with_index(index).up().build()), 0)
}

/// Gives an interface its address.
pub(super) fn add_address(index: u32, address: Ipv4Addr) -> Request {
    let message =
        AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, PREFIX).build();
    Request::route(Route::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// The way to everywhere else.
pub(super) fn add_default_route(gateway: Ipv4Addr) -> Request {
    let message = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
    Request::route(Route::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// The names of all interfaces.
pub(super) fn names(socket: &mut Socket) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let request = Request::new(RTM_GETLINK, 0, &[0; LINK_HEADER]);
    socket.dump(request, |body| {
        let found = body.get(LINK_HEADER..).and_then(|rest| {
            attributes(rest).find(|(kind, _)| *kind == ATTR_NAME).map(|(_, name)| text(name))
        });
        names.extend(found);
    })?;
    Ok(names)
}

/// A locally administered address that follows from the IP address. A set address also keeps the
/// host's device manager from choosing another one while the link is being made.
fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    [&[0x02, b'K'], address.octets().as_slice()].concat()
}
