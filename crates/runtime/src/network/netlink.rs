//! Netlink framing (RFC 3549): requests with attributes, sent together, and their acknowledgements.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::Socket as RawSocket;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::reply::{TYPE_DONE, TYPE_ERROR, messages};

const HEADER: usize = 16;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;
/// Netlink's own limit of one dump message is 32 KiB.
const RECEIVE: usize = 65_536;

/// One request, without its length and sequence number.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
    acknowledged: bool,
}

impl Request {
    /// Starts a request; the family's own header follows, then attributes.
    pub(super) fn new(kind: u16, flags: u16, family_header: &[u8]) -> Request {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(family_header);
        Request { bytes, acknowledged: flags & NLM_F_ACK != 0 }
    }

    /// A request in the route family's typed form; always acknowledged.
    pub(super) fn route(message: RouteNetlinkMessage, flags: u16) -> Request {
        let mut typed = NetlinkMessage::from(message);
        typed.header.flags = flags | NLM_F_REQUEST | NLM_F_ACK;
        typed.finalize();
        let mut bytes = vec![0; typed.buffer_len()];
        typed.serialize(&mut bytes);
        Request { bytes, acknowledged: true }
    }

    /// Appends an attribute.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Request {
        let length = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.align();
        self
    }

    /// Appends an attribute of text, which the kernel wants to end in a zero byte.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Request {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Appends a number in network byte order, as netfilter has them.
    pub(super) fn number(&mut self, kind: u16, value: u32) -> &mut Request {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends an attribute that consists of attributes.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Request)) -> &mut Request {
        let start = self.bytes.len();
        self.attribute(kind | NESTED, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A netlink socket. It belongs to the network namespace of the thread that opened it, for good.
#[derive(Debug)]
pub(super) struct Socket {
    raw: RawSocket,
    /// The sequence number of the last request.
    sequence: u32,
    /// Whether requests that are sent together take effect together or not at all; the kernel then
    /// need not answer to those around a refused one.
    atomic: bool,
}

/// A refused request.
#[derive(Debug)]
pub(super) struct Refused {
    /// Which of those that were sent together.
    pub(super) index: usize,
    /// Why.
    pub(super) error: io::Error,
}

impl Socket {
    /// Opens a socket of a protocol (`NETLINK_ROUTE`, `NETLINK_NETFILTER`).
    pub(super) fn open(protocol: isize) -> io::Result<Socket> {
        let raw = RawSocket::new(protocol)?;
        raw.set_ext_ack(true)?;
        raw.set_cap_ack(true)?;
        Ok(Socket { raw, sequence: 0, atomic: protocol == NETLINK_NETFILTER })
    }

    /// Sends requests together and waits for what the kernel says to each. They take effect in order;
    /// of the route family, those after a refused one do as well. The first refusal is reported.
    pub(super) fn send(&mut self, requests: Vec<Request>) -> Result<(), Refused> {
        let failed = |error| Refused { index: 0, error };
        let first = self.sequence + 1;
        let mut expected = requests.iter().filter(|request| request.acknowledged).count();
        self.write(requests).map_err(failed)?;
        let mut refused = None;
        while expected > 0 {
            let reply = self.read().map_err(failed)?;
            for message in messages(&reply) {
                if message.kind != TYPE_ERROR || message.sequence < first {
                    continue;
                }
                expected = expected.saturating_sub(1);
                if let Err(error) = message.outcome() {
                    let index = (message.sequence - first) as usize;
                    refused.get_or_insert(Refused { index, error });
                }
            }
            if self.atomic && refused.is_some() {
                break;
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends one request that lists things, and hands over the body of every answer.
    pub(super) fn dump(
        &mut self,
        mut request: Request,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let flags = (NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes();
        request.bytes[6..8].copy_from_slice(&flags);
        let sequence = self.sequence + 1;
        self.write(vec![request])?;
        loop {
            let reply = self.read()?;
            for message in messages(&reply).filter(|message| message.sequence == sequence) {
                match message.kind {
                    TYPE_DONE => return Ok(()),
                    TYPE_ERROR => return message.outcome(),
                    _ => each(message.body),
                }
            }
        }
    }

    fn write(&mut self, requests: Vec<Request>) -> io::Result<()> {
        let mut all = Vec::new();
        for Request { mut bytes, .. } in requests {
            self.sequence += 1;
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
            all.extend_from_slice(&bytes);
            all.resize(all.len().next_multiple_of(4), 0);
        }
        let sent = self.raw.send(&all, 0)?;
        if sent == all.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(RECEIVE);
        loop {
            match self.raw.recv(&mut buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(buffer),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}
