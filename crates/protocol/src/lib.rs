//! The protocol between the host and the agent inside a sandbox, sans-IO.
//!
//! Owns: the frames, the messages, version negotiation and flow-control arithmetic of one byte
//! stream, whatever carries it (a Unix socket, virtio-serial, vsock). Refuses: sockets, clocks,
//! async, and any knowledge of how either side does its work.
//!
//! # Wire format, version 1
//!
//! All integers are big-endian. The stream is a sequence of frames:
//!
//! ```text
//! u32 length of what follows (5 ..= MAX_FRAME) | u8 kind | u32 stream id | payload
//! ```
//!
//! The host opens a connection with `Hello`; the agent answers `Welcome` with the version it chose,
//! or `Refuse`. Then the host opens streams by `Request`, each under an id that it has not used
//! before on this connection. The agent ends every stream with one final [`Reply`]. Many streams run
//! at once; bytes travel as `Data` under a window of [`WINDOW`] bytes per stream and direction that
//! the receiver refills by `Credit`, so a reader that is slow stops its own stream and no other.
//!
//! | kind | frame | from | stream | payload |
//! |---|---|---|---|---|
//! | 1 | `Hello` | host | 0 | JSON [`Hello`] |
//! | 2 | `Welcome` | agent | 0 | JSON [`Welcome`] |
//! | 3 | `Refuse` | agent | 0 | JSON [`Refuse`] |
//! | 4 | `Ping` | host | 0 | u64, any value |
//! | 5 | `Pong` | agent | 0 | the same u64 |
//! | 6 | `Request` | host | new | JSON [`Request`] |
//! | 7 | `Control` | host | open | JSON [`Control`] |
//! | 8 | `Reply` | agent | open | JSON [`Reply`] |
//! | 9 | `Data` | both | open | u8 channel, then 1 ..= [`MAX_DATA`] bytes |
//! | 10 | `End` | both | open | u8 channel that has ended |
//! | 11 | `Credit` | both | open | u32, bytes that the receiver has consumed |
//! | 12 | `Close` | host | open | empty: the host drops all further `Data` of this stream |
//!
//! Strings that come from a guest's file system or go into a process are [`Text`]: a JSON string,
//! or `{"base64": "…"}` when the bytes are not UTF-8, so nothing is lost.
#![forbid(unsafe_code)]

mod codec;
mod failure;
mod frame;
mod message;
mod text;
mod version;
mod window;

pub use codec::{DecodeError, Decoder, EncodeError, encode};
pub use failure::{Failure, FileErrorKind, StartErrorKind};
pub use frame::{Channel, Frame, MAX_DATA, MAX_FRAME};
pub use message::{Control, Entry, EntryKind, ExecRequest, PtySize, Reply, Request};
pub use text::Text;
pub use version::{Hello, MAX_VERSION, MIN_VERSION, NoCommonVersion, Refuse, Welcome, negotiate};
pub use window::{ReceiveWindow, WINDOW, WindowExceeded};
