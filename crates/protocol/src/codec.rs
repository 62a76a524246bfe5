//! Bytes to frames and back.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::{Channel, Frame, MAX_DATA, MAX_FRAME, kind};

/// Bytes of kind and stream id, which every frame has after its length.
const HEADER: usize = 5;

/// Why a frame cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The message does not fit into a frame.
    #[error("the message has {size} bytes as a frame; a frame has at most {MAX_FRAME}")]
    TooLarge {
        /// What the length field would be.
        size: usize,
    },
    /// `Data` has no bytes or more than [`MAX_DATA`].
    #[error("a data frame carries 1 to {MAX_DATA} bytes, not {size}")]
    DataSize {
        /// How many it has.
        size: usize,
    },
}

/// Why a byte stream is not this protocol. After it the stream cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A length field out of bounds.
    #[error("frame length {length} is outside {HEADER}..={MAX_FRAME}")]
    Length {
        /// The field.
        length: u32,
    },
    /// A kind that no version known here has.
    #[error("frame kind {kind} is unknown in protocol versions 1 to {}", crate::MAX_VERSION)]
    UnknownKind {
        /// The kind byte.
        kind: u8,
    },
    /// A channel that does not exist.
    #[error("channel {channel} is unknown (frame kind {kind})")]
    UnknownChannel {
        /// The kind byte.
        kind: u8,
        /// The channel byte.
        channel: u8,
    },
    /// A connection frame on a stream, or a stream frame on stream 0.
    #[error("frame kind {kind} on stream {stream}")]
    Stream {
        /// The kind byte.
        kind: u8,
        /// The stream id.
        stream: u32,
    },
    /// A payload of a size that its kind cannot have.
    #[error("frame kind {kind} has a payload of {size} bytes")]
    PayloadSize {
        /// The kind byte.
        kind: u8,
        /// The size.
        size: usize,
    },
    /// A JSON payload that is not the message its kind needs.
    #[error("frame kind {kind} has a payload that is not its message")]
    Message {
        /// The kind byte.
        kind: u8,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// Appends `frame` to `out`; on an error `out` is as before.
pub fn encode(frame: &Frame, out: &mut BytesMut) -> Result<(), EncodeError> {
    let start = out.len();
    let result = encode_parts(frame, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn encode_parts(frame: &Frame, out: &mut BytesMut) -> Result<(), EncodeError> {
    match frame {
        Frame::Hello(message) => json(out, kind::HELLO, 0, message),
        Frame::Welcome(message) => json(out, kind::WELCOME, 0, message),
        Frame::Refuse(message) => json(out, kind::REFUSE, 0, message),
        Frame::Ping(value) => {
            header(out, kind::PING, 0, 8);
            out.put_u64(*value);
            Ok(())
        }
        Frame::Pong(value) => {
            header(out, kind::PONG, 0, 8);
            out.put_u64(*value);
            Ok(())
        }
        Frame::Request { stream, request } => json(out, kind::REQUEST, *stream, request),
        Frame::Control { stream, control } => json(out, kind::CONTROL, *stream, control),
        Frame::Reply { stream, reply } => json(out, kind::REPLY, *stream, reply),
        Frame::Data { stream, channel, bytes } => {
            if bytes.is_empty() || bytes.len() > MAX_DATA {
                return Err(EncodeError::DataSize { size: bytes.len() });
            }
            header(out, kind::DATA, *stream, 1 + bytes.len());
            out.put_u8(channel.number());
            out.put_slice(bytes);
            Ok(())
        }
        Frame::End { stream, channel } => {
            header(out, kind::END, *stream, 1);
            out.put_u8(channel.number());
            Ok(())
        }
        Frame::Credit { stream, bytes } => {
            header(out, kind::CREDIT, *stream, 4);
            out.put_u32(*bytes);
            Ok(())
        }
        Frame::Close { stream } => {
            header(out, kind::CLOSE, *stream, 0);
            Ok(())
        }
    }
}

fn header(out: &mut BytesMut, kind: u8, stream: u32, payload: usize) {
    out.reserve(4 + HEADER + payload);
    out.put_u32((HEADER + payload) as u32);
    out.put_u8(kind);
    out.put_u32(stream);
}

fn json<T: Serialize>(
    out: &mut BytesMut,
    kind: u8,
    stream: u32,
    message: &T,
) -> Result<(), EncodeError> {
    let payload = serde_json::to_vec(message).expect("these messages have string keys only");
    let size = HEADER + payload.len();
    if size > MAX_FRAME {
        return Err(EncodeError::TooLarge { size });
    }
    header(out, kind, stream, payload.len());
    out.put_slice(&payload);
    Ok(())
}

/// Cuts a byte stream, however it was split, into frames. Holds at most one frame and what was read
/// beyond it.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Where to append what was read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Appends what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the stream may end here: no part of a frame is pending.
    pub fn is_at_boundary(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next frame; `None` until more bytes are there.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix);
        let size = length as usize;
        if !(HEADER..=MAX_FRAME).contains(&size) {
            return Err(DecodeError::Length { length });
        }
        if self.buffer.len() < 4 + size {
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut payload = self.buffer.split_to(size).freeze();
        let kind = payload.get_u8();
        let stream = payload.get_u32();
        decode(kind, stream, payload).map(Some)
    }
}

fn decode(kind: u8, stream: u32, mut payload: Bytes) -> Result<Frame, DecodeError> {
    let on_connection =
        matches!(kind, kind::HELLO | kind::WELCOME | kind::REFUSE | kind::PING | kind::PONG);
    if !(kind::HELLO..=kind::CLOSE).contains(&kind) {
        return Err(DecodeError::UnknownKind { kind });
    }
    if on_connection != (stream == 0) {
        return Err(DecodeError::Stream { kind, stream });
    }
    let sized = |wanted: usize| match payload.len() {
        size if size == wanted => Ok(()),
        size => Err(DecodeError::PayloadSize { kind, size }),
    };
    Ok(match kind {
        kind::HELLO => Frame::Hello(message(kind, &payload)?),
        kind::WELCOME => Frame::Welcome(message(kind, &payload)?),
        kind::REFUSE => Frame::Refuse(message(kind, &payload)?),
        kind::REQUEST => Frame::Request { stream, request: message(kind, &payload)? },
        kind::CONTROL => Frame::Control { stream, control: message(kind, &payload)? },
        kind::REPLY => Frame::Reply { stream, reply: message(kind, &payload)? },
        kind::PING | kind::PONG => {
            sized(8)?;
            let value = payload.get_u64();
            if kind == kind::PING { Frame::Ping(value) } else { Frame::Pong(value) }
        }
        kind::DATA => {
            if payload.len() < 2 || payload.len() > 1 + MAX_DATA {
                return Err(DecodeError::PayloadSize { kind, size: payload.len() });
            }
            let channel = channel(kind, payload.get_u8())?;
            Frame::Data { stream, channel, bytes: payload }
        }
        kind::END => {
            sized(1)?;
            Frame::End { stream, channel: channel(kind, payload[0])? }
        }
        kind::CREDIT => {
            sized(4)?;
            Frame::Credit { stream, bytes: payload.get_u32() }
        }
        _ => {
            sized(0)?;
            Frame::Close { stream }
        }
    })
}

fn channel(kind: u8, channel: u8) -> Result<Channel, DecodeError> {
    Channel::from_number(channel).ok_or(DecodeError::UnknownChannel { kind, channel })
}

fn message<T: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(payload).map_err(|source| DecodeError::Message { kind, source })
}
