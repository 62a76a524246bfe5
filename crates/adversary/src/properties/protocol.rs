//! Frames between host and agent.

use bytes::BytesMut;
use kiln_protocol::{
    DecodeError, Decoder, EncodeError, Entry, Frame, MAX_DATA, MAX_FRAME, MAX_VERSION, MIN_VERSION,
    ReceiveWindow, encode, negotiate,
};

/// Reads the bytes as a stream of frames, whole and in pieces, and as a listing.
pub(super) fn check(bytes: &[u8]) {
    let (frames, end) = decode(bytes, bytes.len().max(1));
    for size in [1, 3, 61] {
        let (pieces, piecewise) = decode(bytes, size);
        assert_eq!(pieces, frames, "pieces of {size}");
        assert_eq!(piecewise.is_err(), end.is_err(), "pieces of {size}");
    }
    if let Err(error) = &end {
        super::assert_printable(error);
    }
    let mut wire = BytesMut::new();
    let mut written = Vec::new();
    let mut window = ReceiveWindow::default();
    for frame in frames {
        check_frame(&frame, &mut window);
        let before = wire.len();
        match encode(&frame, &mut wire) {
            Ok(()) => written.push(frame),
            // The form that is written may be longer than the one that was read.
            Err(EncodeError::TooLarge { size }) => {
                assert!(size > MAX_FRAME);
                assert_eq!(wire.len(), before, "a refused frame leaves nothing");
            }
            Err(error) => panic!("a frame that was read cannot be written: {error}"),
        }
    }
    let (read, end) = decode(&wire, wire.len().max(1));
    assert_eq!(read, written, "what is written is read");
    assert_eq!(end.ok(), Some(true));
    let mut again = BytesMut::new();
    for frame in &read {
        encode(frame, &mut again).expect("it was written before");
    }
    assert_eq!(again, wire, "one frame, one form");
    // A listing is one entry a line.
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(entry) = serde_json::from_slice::<Entry>(line) {
            let text = serde_json::to_vec(&entry).expect("it has a JSON form");
            assert_eq!(serde_json::from_slice::<Entry>(&text).expect("it was written"), entry);
        }
    }
}

/// Frames up to the first error or the end; at the end, whether no part of a frame was left.
fn decode(bytes: &[u8], size: usize) -> (Vec<Frame>, Result<bool, DecodeError>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for piece in bytes.chunks(size) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        assert!(decoder.buffer().len() < 4 + MAX_FRAME, "more than a frame is held back");
    }
    (frames, Ok(decoder.is_at_boundary()))
}

fn check_frame(frame: &Frame, window: &mut ReceiveWindow) {
    match frame {
        Frame::Hello(hello) => {
            if let Ok(version) = negotiate(hello) {
                assert!((MIN_VERSION..=MAX_VERSION).contains(&version));
                assert!((hello.min_version..=hello.max_version).contains(&version));
            }
        }
        Frame::Data { stream, bytes, .. } => {
            assert_ne!(*stream, 0);
            assert!((1..=MAX_DATA).contains(&bytes.len()));
            if window.arrived(bytes.len() as u32).is_ok() {
                window.consumed(bytes.len() as u32);
            }
        }
        Frame::Credit { stream, bytes } => {
            assert_ne!(*stream, 0);
            let credit = window.consumed(*bytes);
            assert!(credit.is_none_or(|credit| credit > 0));
        }
        Frame::Request { stream, .. }
        | Frame::Control { stream, .. }
        | Frame::Reply { stream, .. }
        | Frame::End { stream, .. }
        | Frame::Close { stream } => assert_ne!(*stream, 0),
        Frame::Welcome(_) | Frame::Refuse(_) | Frame::Ping(_) | Frame::Pong(_) => {}
    }
}
