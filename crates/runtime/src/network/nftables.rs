//! The few messages of nf_tables (`linux/netfilter/nf_tables.h`) that the sandbox network needs.

use std::net::Ipv4Addr;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};

use super::netlink::Request;

const SUBSYSTEM: u16 = 10;
const FAMILY_IPV4: u8 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const LIST_ELEMENT: u16 = 1;
const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// Where a chain is hooked in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// The chain's name.
    pub(super) chain: &'static str,
    /// Its type.
    pub(super) kind: &'static str,
    /// The hook's number.
    pub(super) number: u32,
    /// Its place among the chains of the same hook.
    pub(super) priority: i32,
}

/// All packets that come in, before anything else looks at them.
pub(super) const PREROUTING: Hook =
    Hook { chain: "prerouting", kind: "filter", number: 0, priority: -300 };
/// Packets to the host itself.
pub(super) const INPUT: Hook = Hook { chain: "input", kind: "filter", number: 1, priority: 0 };
/// Packets that the host passes on.
pub(super) const FORWARD: Hook = Hook { chain: "forward", kind: "filter", number: 2, priority: 0 };
/// Packets that leave the host, after routing.
pub(super) const POSTROUTING: Hook =
    Hook { chain: "postrouting", kind: "nat", number: 4, priority: 100 };

/// A transport protocol.
#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    /// RFC 792
    Icmp = 1,
    /// RFC 9293
    Tcp = 6,
    /// RFC 768
    Udp = 17,
}

/// A part of a rule: a match (all have to hold), or what then happens.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    /// The packet came in by an interface whose name starts so.
    From(String),
    /// The sender's address is in a network.
    Source(Ipv4Addr, u8),
    /// The sender's address is not in a network.
    NotSource(Ipv4Addr, u8),
    /// The receiver's address is in a network.
    Destination(Ipv4Addr, u8),
    /// The receiver's address is not in a network.
    NotDestination(Ipv4Addr, u8),
    /// The transport protocol.
    Protocol(Protocol),
    /// The receiver's port (after [`Expression::Protocol`]).
    Port(u16),
    /// The packet belongs to a connection that was let through before.
    Established,
    /// The sender's address is not one that lies behind the interface by which the packet came in.
    /// Kernels may be built without this one.
    Forged,
    /// Let it through this chain.
    Accept,
    /// Refuse it, and tell nobody.
    Drop,
    /// Refuse it, and tell the sender (ICMP "administratively prohibited").
    Reject,
    /// Put the host's address in the place of the sender's.
    Masquerade,
}

/// A batch: takes effect as a whole, or not at all.
pub(super) fn batch(requests: Vec<Request>) -> Vec<Request> {
    let edge = |kind| {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        Request::new(kind, 0, &[0, 0, high, low])
    };
    let mut all = vec![edge(BATCH_BEGIN)];
    all.extend(requests);
    all.push(edge(BATCH_END));
    all
}

/// Makes a table, unless it is there.
pub(super) fn new_table(table: &str) -> Request {
    let mut request = request(NEW_TABLE, NLM_F_CREATE);
    request.text(1, table);
    request
}

/// Deletes a table with all that is in it.
pub(super) fn delete_table(table: &str) -> Request {
    let mut request = request(DELETE_TABLE, 0);
    request.text(1, table);
    request
}

/// Makes a chain that lets pass what no rule decides.
pub(super) fn new_chain(table: &str, hook: Hook) -> Request {
    let mut request = request(NEW_CHAIN, NLM_F_CREATE);
    request
        .text(1, table)
        .text(3, hook.chain)
        .nested(4, |inner| {
            inner.number(1, hook.number).number(2, hook.priority as u32);
        })
        .text(7, hook.kind);
    request
}

/// Appends a rule.
pub(super) fn new_rule(table: &str, hook: Hook, expressions: &[Expression]) -> Request {
    let mut request = request(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND);
    request.text(1, table).text(2, hook.chain).nested(4, |list| {
        for expression in expressions {
            expression.encode(list);
        }
    });
    request
}

fn request(kind: u16, flags: u16) -> Request {
    Request::new((SUBSYSTEM << 8) | kind, flags | NLM_F_ACK, &[FAMILY_IPV4, 0, 0, 0])
}

impl Expression {
    fn encode(&self, list: &mut Request) {
        match self {
            Expression::From(prefix) => {
                meta(list, 6);
                compare(list, EQUAL, prefix.as_bytes());
            }
            Expression::Source(network, prefix) => address(list, 12, EQUAL, *network, *prefix),
            Expression::NotSource(network, prefix) => {
                address(list, 12, NOT_EQUAL, *network, *prefix);
            }
            Expression::Destination(network, prefix) => address(list, 16, EQUAL, *network, *prefix),
            Expression::NotDestination(network, prefix) => {
                address(list, 16, NOT_EQUAL, *network, *prefix);
            }
            Expression::Protocol(protocol) => {
                meta(list, 16);
                compare(list, EQUAL, &[*protocol as u8]);
            }
            Expression::Port(port) => {
                payload(list, TRANSPORT_HEADER, 2, 2);
                compare(list, EQUAL, &port.to_be_bytes());
            }
            Expression::Established => {
                element(list, "ct", |data| {
                    data.number(1, REGISTER).number(2, 0);
                });
                // NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED; the register holds a number.
                mask(list, 0b110_u32.to_ne_bytes());
                compare(list, NOT_EQUAL, &0_u32.to_ne_bytes());
            }
            Expression::Forged => {
                // The interface of the route to the sender, by way of this interface only.
                element(list, "fib", |data| {
                    data.number(1, REGISTER).number(2, 1).number(3, 0b1001);
                });
                compare(list, EQUAL, &0_u32.to_ne_bytes());
            }
            Expression::Accept => verdict(list, 1),
            Expression::Drop => verdict(list, 0),
            Expression::Reject => element(list, "reject", |data| {
                // NFT_REJECT_ICMP_UNREACH with the code of RFC 1812 5.2.7.1.
                data.number(1, 0).attribute(2, &[13]);
            }),
            Expression::Masquerade => element(list, "masq", |_| {}),
        }
    }
}

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

fn element(list: &mut Request, name: &str, data: impl FnOnce(&mut Request)) {
    list.nested(LIST_ELEMENT, |element| {
        element.text(1, name).nested(2, data);
    });
}

fn address(list: &mut Request, offset: u32, operator: u32, network: Ipv4Addr, prefix: u8) {
    let bits = u32::MAX << (32 - u32::from(prefix));
    payload(list, NETWORK_HEADER, offset, 4);
    mask(list, bits.to_be_bytes());
    compare(list, operator, &network.octets());
}

fn verdict(list: &mut Request, code: u32) {
    element(list, "immediate", |data| {
        data.number(1, REGISTER_VERDICT).nested(2, |data| {
            data.nested(DATA_VERDICT, |verdict| {
                verdict.number(1, code);
            });
        });
    });
}

fn payload(list: &mut Request, base: u32, offset: u32, length: u32) {
    element(list, "payload", |data| {
        data.number(1, REGISTER).number(2, base).number(3, offset).number(4, length);
    });
}

fn meta(list: &mut Request, key: u32) {
    element(list, "meta", |data| {
        data.number(1, REGISTER).number(2, key);
    });
}

fn compare(list: &mut Request, operator: u32, value: &[u8]) {
    element(list, "cmp", |data| {
        data.number(1, REGISTER).number(2, operator).nested(3, |data| {
            data.attribute(DATA_VALUE, value);
        });
    });
}

fn mask(list: &mut Request, bits: [u8; 4]) {
    element(list, "bitwise", |data| {
        data.number(1, REGISTER)
            .number(2, REGISTER)
            .number(3, 4)
            .nested(4, |data| {
                data.attribute(DATA_VALUE, &bits);
            })
            .nested(5, |data| {
                data.attribute(DATA_VALUE, &[0; 4]);
            });
    });
}
