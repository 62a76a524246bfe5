//! Frames: what one connection is made of.

use bytes::Bytes;

use crate::{Control, Hello, Refuse, Reply, Request, Welcome};

/// The most bytes that one `Data` frame carries.
pub const MAX_DATA: usize = 64 * 1024;
/// The largest value of a frame's length field: kind, stream id and payload.
pub const MAX_FRAME: usize = 1024 * 1024;

/// A lane of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Host to agent: standard input, keystrokes, the content of a file.
    Input,
    /// Agent to host: standard output, a terminal's output, the content of a file, a listing.
    Output,
    /// Agent to host: standard error.
    Error,
}

impl Channel {
    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Input => 0,
            Self::Output => 1,
            Self::Error => 2,
        }
    }

    /// The channel of a number on the wire.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Input),
            1 => Some(Self::Output),
            2 => Some(Self::Error),
            _ => None,
        }
    }
}

/// One frame, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The host opens the connection.
    Hello(Hello),
    /// The agent accepts it.
    Welcome(Welcome),
    /// The agent refuses it.
    Refuse(Refuse),
    /// Are you there?
    Ping(u64),
    /// Yes.
    Pong(u64),
    /// Opens a stream.
    Request {
        /// The new stream.
        stream: u32,
        /// What it is for.
        request: Request,
    },
    /// The host steers a stream.
    Control {
        /// The stream.
        stream: u32,
        /// How.
        control: Control,
    },
    /// The agent answers on a stream.
    Reply {
        /// The stream.
        stream: u32,
        /// The answer.
        reply: Reply,
    },
    /// Bytes, never none.
    Data {
        /// The stream.
        stream: u32,
        /// The lane.
        channel: Channel,
        /// The bytes.
        bytes: Bytes,
    },
    /// No more bytes will come on this lane.
    End {
        /// The stream.
        stream: u32,
        /// The lane.
        channel: Channel,
    },
    /// The receiver has consumed bytes.
    Credit {
        /// The stream.
        stream: u32,
        /// How many.
        bytes: u32,
    },
    /// The host wants no more `Data` of this stream.
    Close {
        /// The stream.
        stream: u32,
    },
}

/// The kind bytes of version 1.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const WELCOME: u8 = 2;
    pub(crate) const REFUSE: u8 = 3;
    pub(crate) const PING: u8 = 4;
    pub(crate) const PONG: u8 = 5;
    pub(crate) const REQUEST: u8 = 6;
    pub(crate) const CONTROL: u8 = 7;
    pub(crate) const REPLY: u8 = 8;
    pub(crate) const DATA: u8 = 9;
    pub(crate) const END: u8 = 10;
    pub(crate) const CREDIT: u8 = 11;
    pub(crate) const CLOSE: u8 = 12;
}
