//! Connecting and disconnecting one sandbox.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rustix::net::netdevice::name_to_index;

use super::links::{self, GUEST, LOOPBACK};
use super::namespace::{enter, set, set_if_there};
use super::netlink::{Refused, Socket};
use super::reply::code;
use super::{Attachment, Host, NetworkError};
use crate::host::HostBlock;
use crate::runtime::Slot;

impl Host {
    /// Moves the calling thread to the host's namespace, wherever it was.
    pub(super) fn enter(&self) -> Result<Links<'_>, NetworkError> {
        enter(&self.netns)?;
        Ok(Links { block: &self.block, socket: open()? })
    }
}

/// The host's end of all links. Each operation has a socket of its own: removing a link takes the
/// kernel long, and nothing else shall wait for that.
#[derive(Debug)]
pub(super) struct Links<'a> {
    block: &'a HostBlock,
    socket: Socket,
}

impl Links<'_> {
    /// The whole way; leaves the calling thread in `netns`.
    pub(super) fn attach(
        mut self,
        netns: &OwnedFd,
        slot: Slot,
    ) -> Result<Attachment, NetworkError> {
        let interface = self.block.interface(slot);
        let place =
            Attachment { address: self.block.guest(slot), gateway: self.block.gateway(slot) };
        self.add_pair(&interface, netns, place)?;
        let connected = self.host_end(&interface, place).and_then(|()| guest_end(netns, place));
        if let Err(error) = connected {
            if let Err(left) = self.detach(&interface) {
                tracing::warn!(interface, error = %left, "a half-made link stays until the next sweep");
            }
            return Err(error);
        }
        Ok(place)
    }

    /// Removes an interface; says whether it was there.
    pub(super) fn detach(&mut self, interface: &str) -> Result<bool, NetworkError> {
        match self.socket.send(vec![links::remove(interface)]) {
            Ok(()) => Ok(true),
            Err(Refused { error, .. }) if code(&error) == Some(libc::ENODEV) => Ok(false),
            Err(Refused { error, .. }) => Err(failed("remove", interface)(error)),
        }
    }

    /// The slots that have an interface.
    pub(super) fn connected(&mut self) -> Result<Vec<Slot>, NetworkError> {
        let names = links::names(&mut self.socket).map_err(failed("list", "*"))?;
        let prefix = self.block.interface_prefix();
        let numbers = names.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse().ok());
        Ok(numbers.filter(|number| *number < Slot::COUNT).map(Slot).collect())
    }

    /// Removes the interfaces of all slots but `alive`.
    pub(super) fn sweep(&mut self, alive: &[Slot]) -> Result<u32, NetworkError> {
        let mut removed = 0;
        for slot in self.connected()? {
            if !alive.contains(&slot) && self.detach(&self.block.interface(slot))? {
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn add_pair(
        &mut self,
        interface: &str,
        netns: &OwnedFd,
        place: Attachment,
    ) -> Result<(), NetworkError> {
        let pair = || vec![links::add_pair(interface, netns.as_fd(), place.gateway, place.address)];
        let added = match self.socket.send(pair()) {
            // A sandbox that ended takes its link along only when the kernel gets to it.
            Err(Refused { error, .. }) if code(&error) == Some(libc::EEXIST) => {
                self.detach(interface)?;
                self.socket.send(pair())
            }
            other => other,
        };
        added.map_err(|Refused { error, .. }| failed("add", interface)(error))
    }

    fn host_end(&mut self, interface: &str, place: Attachment) -> Result<(), NetworkError> {
        // Only its own address may come from a sandbox, and no IPv6: the rules know IPv4 alone.
        set(&format!("ipv4/conf/{interface}/rp_filter"), "1")?;
        set_if_there(&format!("ipv6/conf/{interface}/disable_ipv6"), "1")?;
        let index = index(&self.socket, interface)?;
        self.socket
            .send(vec![links::add_address(index, place.gateway), links::up(index)])
            .map_err(|Refused { error, .. }| failed("configure", interface)(error))
    }
}

fn guest_end(netns: &OwnedFd, place: Attachment) -> Result<(), NetworkError> {
    enter(netns)?;
    settings()?;
    set_if_there(&format!("ipv6/conf/{GUEST}/disable_ipv6"), "1")?;
    let mut socket = open()?;
    let index = index(&socket, GUEST)?;
    let requests = vec![
        links::up(LOOPBACK),
        links::add_address(index, place.address),
        links::up(index),
        links::add_default_route(place.gateway),
    ];
    let refused = |Refused { index, error }| {
        let (action, interface) = match index {
            0 => ("start", "lo"),
            3 => ("route through", GUEST),
            _ => ("configure", GUEST),
        };
        failed(action, interface)(error)
    };
    socket.send(requests).map_err(refused)
}

/// Leaves the calling thread in `netns`.
pub(super) fn loopback_only(netns: &OwnedFd) -> Result<(), NetworkError> {
    enter(netns)?;
    settings()?;
    open()?
        .send(vec![links::up(LOOPBACK)])
        .map_err(|Refused { error, .. }| failed("start", "lo")(error))
}

/// A sandbox's root holds no capability over a namespace that the host owns: these two let everybody in
/// it use ping and the well-known ports, as root would.
fn settings() -> Result<(), NetworkError> {
    set("ipv4/ping_group_range", "0 2147483647")?;
    set("ipv4/ip_unprivileged_port_start", "0")
}

fn open() -> Result<Socket, NetworkError> {
    Socket::open(NETLINK_ROUTE).map_err(|source| NetworkError::Socket { source })
}

fn index(socket: &Socket, interface: &str) -> Result<u32, NetworkError> {
    name_to_index(socket, interface).map_err(|errno| failed("find", interface)(errno.into()))
}

fn failed(action: &'static str, interface: &str) -> impl FnOnce(io::Error) -> NetworkError {
    let interface = interface.to_owned();
    move |source| NetworkError::Link { action, interface, source }
}
