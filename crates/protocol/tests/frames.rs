//! Frames survive the wire, however it is cut; what is no frame is refused, and nothing panics.

use bytes::{Bytes, BytesMut};
use kiln_protocol::{
    Channel, Control, DecodeError, Decoder, EncodeError, Entry, EntryKind, ExecRequest, Failure,
    FileErrorKind, Frame, Hello, MAX_DATA, MAX_FRAME, PtySize, Refuse, Reply, Request,
    StartErrorKind, Text, Welcome, encode,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![vec(any::<u8>(), 0..40).prop_map(Text::from), any::<String>().prop_map(Text::from)]
}

fn exec() -> impl Strategy<Value = ExecRequest> {
    let size = (any::<u16>(), any::<u16>()).prop_map(|(rows, cols)| PtySize { rows, cols });
    (
        vec(text(), 0..5),
        vec((text(), text()), 0..5),
        option::of(text()),
        option::of(any::<String>()),
        option::of(size),
        option::of(any::<u64>()),
    )
        .prop_map(|(argv, env, cwd, user, pty, timeout_ms)| ExecRequest {
            argv,
            env,
            cwd,
            user,
            pty,
            timeout_ms,
        })
}

fn request() -> impl Strategy<Value = Request> {
    let paths = || (text(), text());
    prop_oneof![
        exec().prop_map(|exec| Request::Exec(Box::new(exec))),
        paths().prop_map(|(cwd, path)| Request::Read { cwd, path }),
        (paths(), option::of(any::<u32>())).prop_map(|((cwd, path), mode)| Request::Write {
            cwd,
            path,
            mode
        }),
        paths().prop_map(|(cwd, path)| Request::List { cwd, path }),
        paths().prop_map(|(cwd, path)| Request::Stat { cwd, path }),
        (paths(), option::of(any::<u32>())).prop_map(|((cwd, path), mode)| Request::Mkdir {
            cwd,
            path,
            mode
        }),
        (paths(), any::<bool>()).prop_map(|((cwd, path), recursive)| Request::Remove {
            cwd,
            path,
            recursive
        }),
        Just(Request::Sync {}),
        any::<u64>().prop_map(|grace_ms| Request::Shutdown { grace_ms }),
    ]
}

fn control() -> impl Strategy<Value = Control> {
    prop_oneof![
        (any::<u16>(), any::<u16>())
            .prop_map(|(rows, cols)| Control::Resize(PtySize { rows, cols })),
        any::<i32>().prop_map(|signal| Control::Signal { signal }),
        Just(Control::Kill {}),
        Just(Control::Abort {}),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        Just(EntryKind::File),
        Just(EntryKind::Directory),
        Just(EntryKind::Symlink),
        Just(EntryKind::Other)
    ];
    (
        text(),
        kind,
        any::<u64>(),
        any::<u32>(),
        any::<(u32, u32)>(),
        any::<i64>(),
        option::of(text()),
    )
        .prop_map(|(name, kind, size, mode, (uid, gid), modified, target)| Entry {
            name,
            kind,
            size,
            mode,
            uid,
            gid,
            modified,
            target,
        })
}

fn reply() -> impl Strategy<Value = Reply> {
    let failure = prop_oneof![
        any::<String>()
            .prop_map(|message| Failure::Start { kind: StartErrorKind::CwdNotFound, message }),
        any::<String>().prop_map(|message| Failure::File { kind: FileErrorKind::NoSpace, message }),
        any::<String>().prop_map(|message| Failure::Refused { message }),
    ];
    prop_oneof![
        any::<u32>().prop_map(|pid| Reply::Started { pid }),
        (any::<u64>(), any::<u32>()).prop_map(|(size, mode)| Reply::Opened { size, mode }),
        (any::<i32>(), option::of(any::<i32>()), any::<bool>())
            .prop_map(|(code, signal, timed_out)| Reply::Exited { code, signal, timed_out }),
        entry().prop_map(|entry| Reply::Entry { entry }),
        Just(Reply::Ready {}),
        Just(Reply::Done {}),
        failure.prop_map(|failure| Reply::Failed { failure }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let stream = || 1..=u32::MAX;
    let channel = || prop_oneof![Just(Channel::Input), Just(Channel::Output), Just(Channel::Error)];
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(min_version, max_version)| Frame::Hello(Hello {
            min_version,
            max_version
        })),
        any::<(u32, String)>()
            .prop_map(|(version, agent)| Frame::Welcome(Welcome { version, agent })),
        any::<String>().prop_map(|message| Frame::Refuse(Refuse { message })),
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
        (stream(), request()).prop_map(|(stream, request)| Frame::Request { stream, request }),
        (stream(), control()).prop_map(|(stream, control)| Frame::Control { stream, control }),
        (stream(), reply()).prop_map(|(stream, reply)| Frame::Reply { stream, reply }),
        (stream(), channel(), vec(any::<u8>(), 1..300)).prop_map(|(stream, channel, bytes)| {
            Frame::Data { stream, channel, bytes: bytes.into() }
        }),
        (stream(), channel()).prop_map(|(stream, channel)| Frame::End { stream, channel }),
        (stream(), any::<u32>()).prop_map(|(stream, bytes)| Frame::Credit { stream, bytes }),
        stream().prop_map(|stream| Frame::Close { stream }),
    ]
}

fn wire(frames: &[Frame]) -> BytesMut {
    let mut wire = BytesMut::new();
    for frame in frames {
        encode(frame, &mut wire).unwrap();
    }
    wire
}

proptest! {
    #[test]
    fn frames_round_trip_however_the_stream_is_cut(
        frames in vec(frame(), 0..8),
        cuts in vec(1_usize..200, 1..50),
    ) {
        let wire = wire(&frames);
        let mut decoder = Decoder::default();
        let mut decoded = Vec::new();
        let mut rest = &wire[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            decoder.push(piece);
            rest = tail;
            while let Some(frame) = decoder.next_frame().unwrap() {
                decoded.push(frame);
            }
        }
        prop_assert_eq!(decoded, frames);
        prop_assert!(decoder.is_at_boundary());
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..2000)) {
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
    }

    #[test]
    fn garbage_behind_a_good_header_never_panics(
        kind in 0_u8..15,
        stream in any::<u32>(),
        payload in vec(any::<u8>(), 0..200),
    ) {
        let mut decoder = Decoder::default();
        decoder.push(&(5 + payload.len() as u32).to_be_bytes());
        decoder.push(&[kind]);
        decoder.push(&stream.to_be_bytes());
        decoder.push(&payload);
        // Either a frame or an error, and nothing in between: the length was kept.
        prop_assert!(!matches!(decoder.next_frame(), Ok(None)));
    }

    #[test]
    fn one_flipped_byte_never_panics(frames in vec(frame(), 1..4), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let mut wire = wire(&frames);
        let at = at.index(wire.len());
        wire[at] ^= flip;
        let mut decoder = Decoder::default();
        decoder.push(&wire);
        while let Ok(Some(_)) = decoder.next_frame() {}
    }

    #[test]
    fn text_keeps_every_byte(bytes in vec(any::<u8>(), 0..100)) {
        let text = Text::from(bytes.clone());
        let json = serde_json::to_string(&text).unwrap();
        let back: Text = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(json.starts_with('"'), std::str::from_utf8(&bytes).is_ok());
        prop_assert_eq!(back.into_bytes(), bytes);
    }
}

fn raw(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (5 + payload.len() as u32).to_be_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn refusal(bytes: &[u8]) -> DecodeError {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    decoder.next_frame().expect_err("refused")
}

#[test]
fn what_is_wrong_is_named() {
    let too_much = vec![0; MAX_DATA + 2];
    let cases: [(Vec<u8>, &str); 14] = [
        (vec![0, 0, 0, 4], "frame length 4 is outside 5..=1048576"),
        ((MAX_FRAME as u32 + 1).to_be_bytes().to_vec(), "frame length 1048577 is outside"),
        (raw(0, 0, b""), "frame kind 0 is unknown"),
        (raw(13, 1, b""), "frame kind 13 is unknown in protocol versions 1 to 1"),
        (raw(1, 1, b"{}"), "frame kind 1 on stream 1"),
        (raw(9, 0, b"\0x"), "frame kind 9 on stream 0"),
        (raw(9, 1, b"\x03x"), "channel 3 is unknown (frame kind 9)"),
        (raw(9, 1, b"\x01"), "frame kind 9 has a payload of 1 bytes"),
        (raw(9, 1, &too_much), "frame kind 9 has a payload of 65538 bytes"),
        (raw(11, 1, b"abc"), "frame kind 11 has a payload of 3 bytes"),
        (raw(12, 1, b"x"), "frame kind 12 has a payload of 1 bytes"),
        (raw(6, 1, b"{\"type\":\"dance\"}"), "frame kind 6 has a payload that is not its message"),
        (raw(6, 1, b"{\"type\":\"sync\",\"x\":1}"), "not its message"),
        (raw(7, 1, b"\xff"), "not its message"),
    ];
    for (bytes, words) in cases {
        let error = refusal(&bytes).to_string();
        assert!(error.contains(words), "{error:?} lacks {words:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_no_trace() {
    let mut out = BytesMut::from(&b"before"[..]);
    let data = |size| Frame::Data {
        stream: 1,
        channel: Channel::Output,
        bytes: Bytes::from(vec![0; size]),
    };
    assert_eq!(encode(&data(0), &mut out), Err(EncodeError::DataSize { size: 0 }));
    let size = MAX_DATA + 1;
    assert_eq!(encode(&data(size), &mut out), Err(EncodeError::DataSize { size }));
    let path = Text::from("x".repeat(MAX_FRAME));
    let request = Request::Stat { cwd: "/".into(), path };
    let error = encode(&Frame::Request { stream: 1, request }, &mut out);
    assert!(matches!(error, Err(EncodeError::TooLarge { size }) if size > MAX_FRAME));
    assert_eq!(out, b"before"[..]);
    encode(&data(MAX_DATA), &mut out).unwrap();
}

/// The bytes of version 1. A change here is a change of the protocol: it needs a new version.
#[test]
fn the_wire_format_of_version_1_is_frozen() {
    let exec = ExecRequest {
        argv: vec!["ls".into(), Text::from(vec![0xff])],
        env: vec![("A".into(), "b=c".into())],
        cwd: Some("/w".into()),
        user: Some("ada:dev".into()),
        pty: Some(PtySize { rows: 24, cols: 80 }),
        timeout_ms: Some(5),
    };
    let entry = Entry {
        name: "n".into(),
        kind: EntryKind::Symlink,
        size: 1,
        mode: 0o777,
        uid: 2,
        gid: 3,
        modified: -4,
        target: Some("t".into()),
    };
    let (cwd, path) = (Text::from("/c"), Text::from("p"));
    let file = Failure::File { kind: FileErrorKind::NotARegularFile, message: "m".into() };
    let start = Failure::Start { kind: StartErrorKind::UnknownUser, message: "m".into() };
    let request = |request| Frame::Request { stream: 1, request };
    let reply = |reply| Frame::Reply { stream: 1, reply };
    let control = |control| Frame::Control { stream: 1, control };
    let cases: Vec<(Frame, u8, &str)> = vec![
        (
            Frame::Hello(Hello { min_version: 1, max_version: 2 }),
            1,
            r#"{"min_version":1,"max_version":2}"#,
        ),
        (
            Frame::Welcome(Welcome { version: 1, agent: "0".into() }),
            2,
            r#"{"version":1,"agent":"0"}"#,
        ),
        (Frame::Refuse(Refuse { message: "m".into() }), 3, r#"{"message":"m"}"#),
        (
            request(Request::Exec(Box::new(exec))),
            6,
            r#"{"type":"exec","argv":["ls",{"base64":"/w=="}],"env":[["A","b=c"]],"cwd":"/w","user":"ada:dev","pty":{"rows":24,"cols":80},"timeout_ms":5}"#,
        ),
        (
            request(Request::Read { cwd: cwd.clone(), path: path.clone() }),
            6,
            r#"{"type":"read","cwd":"/c","path":"p"}"#,
        ),
        (
            request(Request::Write { cwd: cwd.clone(), path: path.clone(), mode: Some(420) }),
            6,
            r#"{"type":"write","cwd":"/c","path":"p","mode":420}"#,
        ),
        (
            request(Request::List { cwd: cwd.clone(), path: path.clone() }),
            6,
            r#"{"type":"list","cwd":"/c","path":"p"}"#,
        ),
        (
            request(Request::Stat { cwd: cwd.clone(), path: path.clone() }),
            6,
            r#"{"type":"stat","cwd":"/c","path":"p"}"#,
        ),
        (
            request(Request::Mkdir { cwd: cwd.clone(), path: path.clone(), mode: None }),
            6,
            r#"{"type":"mkdir","cwd":"/c","path":"p","mode":null}"#,
        ),
        (
            request(Request::Remove { cwd, path, recursive: true }),
            6,
            r#"{"type":"remove","cwd":"/c","path":"p","recursive":true}"#,
        ),
        (request(Request::Sync {}), 6, r#"{"type":"sync"}"#),
        (request(Request::Shutdown { grace_ms: 9 }), 6, r#"{"type":"shutdown","grace_ms":9}"#),
        (
            control(Control::Resize(PtySize { rows: 1, cols: 2 })),
            7,
            r#"{"type":"resize","rows":1,"cols":2}"#,
        ),
        (control(Control::Signal { signal: 15 }), 7, r#"{"type":"signal","signal":15}"#),
        (control(Control::Kill {}), 7, r#"{"type":"kill"}"#),
        (control(Control::Abort {}), 7, r#"{"type":"abort"}"#),
        (reply(Reply::Started { pid: 7 }), 8, r#"{"type":"started","pid":7}"#),
        (reply(Reply::Opened { size: 1, mode: 2 }), 8, r#"{"type":"opened","size":1,"mode":2}"#),
        (
            reply(Reply::Exited { code: 137, signal: Some(9), timed_out: true }),
            8,
            r#"{"type":"exited","code":137,"signal":9,"timed_out":true}"#,
        ),
        (
            reply(Reply::Entry { entry }),
            8,
            r#"{"type":"entry","entry":{"name":"n","kind":"symlink","size":1,"mode":511,"uid":2,"gid":3,"modified":-4,"target":"t"}}"#,
        ),
        (reply(Reply::Ready {}), 8, r#"{"type":"ready"}"#),
        (reply(Reply::Done {}), 8, r#"{"type":"done"}"#),
        (
            reply(Reply::Failed { failure: file }),
            8,
            r#"{"type":"failed","failure":{"type":"file","kind":"not_a_regular_file","message":"m"}}"#,
        ),
        (
            reply(Reply::Failed { failure: start }),
            8,
            r#"{"type":"failed","failure":{"type":"start","kind":"unknown_user","message":"m"}}"#,
        ),
        (
            reply(Reply::Failed { failure: Failure::Refused { message: "m".into() } }),
            8,
            r#"{"type":"failed","failure":{"type":"refused","message":"m"}}"#,
        ),
    ];
    for (frame, kind, json) in cases {
        let stream = u32::from(kind >= 6);
        let expected = raw(kind, stream, json.as_bytes());
        let got = wire(std::slice::from_ref(&frame));
        assert_eq!(got, expected, "{}", String::from_utf8_lossy(&got[9..]));
    }
    let bytes = Bytes::from_static(b"hi");
    let binary: [(Frame, &[u8]); 6] = [
        (Frame::Ping(1), b"\0\0\0\x0d\x04\0\0\0\0\0\0\0\0\0\0\0\x01"),
        (Frame::Pong(1), b"\0\0\0\x0d\x05\0\0\0\0\0\0\0\0\0\0\0\x01"),
        (
            Frame::Data { stream: 258, channel: Channel::Error, bytes },
            b"\0\0\0\x08\x09\0\0\x01\x02\x02hi",
        ),
        (Frame::End { stream: 1, channel: Channel::Input }, b"\0\0\0\x06\x0a\0\0\0\x01\0"),
        (Frame::Credit { stream: 1, bytes: 65536 }, b"\0\0\0\x09\x0b\0\0\0\x01\0\x01\0\0"),
        (Frame::Close { stream: 1 }, b"\0\0\0\x05\x0c\0\0\0\x01"),
    ];
    for (frame, expected) in binary {
        assert_eq!(wire(&[frame]), expected);
    }
}
