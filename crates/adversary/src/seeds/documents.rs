//! JSON documents and frames.

use bytes::{Bytes, BytesMut};
use kiln_protocol::{
    Channel, Control, Entry, EntryKind, ExecRequest, Failure, FileErrorKind, Frame, Hello, PtySize,
    Refuse, Reply, Request, StartErrorKind, Text, Welcome, encode,
};
use kiln_types::Digest;
use serde_json::json;

type Seeds = Vec<(&'static str, Vec<u8>)>;

pub(super) fn manifests() -> Seeds {
    let digest = Digest::of("x");
    let descriptor =
        |media_type: &str| json!({ "mediaType": media_type, "digest": digest, "size": 7 });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [
            descriptor("application/vnd.oci.image.layer.v1.tar"),
            descriptor("application/vnd.oci.image.layer.v1.tar+gzip"),
        ],
        "annotations": { "a": "b" },
    });
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json");
    entry["platform"] = json!({ "os": "linux", "architecture": "arm64", "variant": "v8" });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/bin", "A=b=c", "EMPTY="],
            "Cmd": ["sh"], "Entrypoint": ["/init"], "WorkingDir": "/w", "User": "1000:1000",
            "Labels": { "k": "v" }, "Volumes": { "/v": {} }, "ExposedPorts": { "80/tcp": {} },
        },
        "rootfs": { "type": "layers", "diff_ids": [digest] },
        "history": [{ "created_by": "x", "empty_layer": true }],
    });
    let nulls = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": null, "Cmd": null, "User": "", "WorkingDir": "" },
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    vec![
        ("manifest", manifest.to_string().into()),
        ("index", index.to_string().into()),
        ("config", config.to_string().into()),
        ("nulls", nulls.to_string().into()),
    ]
}

pub(super) fn templates() -> Seeds {
    let full = json!({
        "name": "team/app:v1", "base_image": "debian-12",
        "apt_packages": ["git", "curl=7.88.1-10"],
        "setup_commands": ["echo a && echo b", "true"],
        "env": { "A": "1", "B": "x y" }, "vcpu": 2, "memory_mib": 512,
    });
    let reference = json!({ "name": "a", "base_image": "localhost:5000/team/app:v1" });
    let rootfs = json!({ "name": "a", "base_image": "/srv/root.tar", "env": { "": "" } });
    let pinned = json!({
        "name": "a", "base_image": format!("registry.test/app@{}", Digest::of("x")),
        "setup_commands": [""],
    });
    [("full", full), ("reference", reference), ("rootfs", rootfs), ("pinned", pinned)]
        .map(|(name, value)| (name, value.to_string().into()))
        .into()
}

pub(super) fn definitions() -> Seeds {
    let full = json!({
        "base": { "catalog": "debian-12" },
        "steps": [
            { "type": "apt", "packages": ["git"] },
            { "type": "pip", "packages": ["requests==2.31.0"] },
            { "type": "npm", "packages": ["@scope/name@1.0.0"] },
            { "type": "run", "command": { "shell": "echo hello > /tmp/x" } },
            { "type": "run", "command": { "argv": ["/bin/true", "&&", "x"] } },
            { "type": "file", "path": "/etc/f", "content_base64": "eA==", "mode": 493 },
            { "type": "env", "vars": { "A": "1" } },
            { "type": "workdir", "path": "/work" },
            { "type": "user", "user": "ada:1000" },
            { "type": "cmd", "argv": ["sh", "-c", "true"] },
        ],
    });
    let bases = [
        json!({ "base": { "reference": "localhost:5000/app:v1" } }),
        json!({ "base": { "rootfs": "/srv/root" }, "steps": [] }),
        json!({ "base": { "image": "app:latest" } }),
    ];
    let [reference, rootfs, image] = bases;
    [("full", full), ("reference", reference), ("rootfs", rootfs), ("image", image)]
        .map(|(name, value)| (name, value.to_string().into()))
        .into()
}

pub(super) fn frames() -> Seeds {
    let text = |value: &str| Text::from(value);
    let exec = ExecRequest {
        argv: vec![text("sh"), Text::from(vec![0xff, 0])],
        env: vec![(text("A"), text("b"))],
        cwd: Some(text("/")),
        user: Some("ada".into()),
        pty: Some(PtySize { rows: 24, cols: 80 }),
        timeout_ms: Some(1000),
    };
    let (cwd, path) = (text("/"), text("etc/f"));
    let host = [
        Frame::Hello(Hello::default()),
        Frame::Ping(7),
        Frame::Request { stream: 1, request: Request::Exec(Box::new(exec)) },
        Frame::Request {
            stream: 2,
            request: Request::Write { cwd: cwd.clone(), path: path.clone(), mode: Some(0o644) },
        },
        Frame::Data { stream: 2, channel: Channel::Input, bytes: Bytes::from_static(b"abc") },
        Frame::End { stream: 2, channel: Channel::Input },
        Frame::Request {
            stream: 3,
            request: Request::List { cwd: cwd.clone(), path: path.clone() },
        },
        Frame::Request {
            stream: 4,
            request: Request::Remove { cwd, path: path.clone(), recursive: true },
        },
        Frame::Control { stream: 1, control: Control::Resize(PtySize { rows: 1, cols: 2 }) },
        Frame::Control { stream: 1, control: Control::Signal { signal: 15 } },
        Frame::Control { stream: 1, control: Control::Kill {} },
        Frame::Credit { stream: 1, bytes: 65_536 },
        Frame::Close { stream: 1 },
        Frame::Request { stream: 5, request: Request::Sync {} },
        Frame::Request { stream: 6, request: Request::Shutdown { grace_ms: 10 } },
    ];
    let entry = Entry {
        name: text("f"),
        kind: EntryKind::Symlink,
        size: 1,
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified: -1,
        target: Some(path),
    };
    let message = String::from("no");
    let agent = [
        Frame::Welcome(Welcome { version: 1, agent: "1".into() }),
        Frame::Pong(7),
        Frame::Reply { stream: 1, reply: Reply::Started { pid: 9 } },
        Frame::Data { stream: 1, channel: Channel::Error, bytes: Bytes::from_static(&[0; 300]) },
        Frame::Reply {
            stream: 1,
            reply: Reply::Exited { code: 143, signal: Some(15), timed_out: true },
        },
        Frame::Reply { stream: 2, reply: Reply::Ready {} },
        Frame::Reply { stream: 2, reply: Reply::Opened { size: 1, mode: 2 } },
        Frame::Reply { stream: 3, reply: Reply::Entry { entry: entry.clone() } },
        Frame::Reply {
            stream: 4,
            reply: Reply::Failed {
                failure: Failure::Start {
                    kind: StartErrorKind::NotFound,
                    message: message.clone(),
                },
            },
        },
        Frame::Reply {
            stream: 4,
            reply: Reply::Failed {
                failure: Failure::File { kind: FileErrorKind::NoSpace, message: message.clone() },
            },
        },
        Frame::Reply { stream: 5, reply: Reply::Done {} },
    ];
    let refuse = [Frame::Refuse(Refuse { message })];
    vec![
        ("host", wire(&host)),
        ("agent", wire(&agent)),
        ("refuse", wire(&refuse)),
        ("listing", serde_json::to_vec(&entry).expect("it has a JSON form")),
    ]
}

fn wire(frames: &[Frame]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for frame in frames {
        encode(frame, &mut out).expect("a small frame fits");
    }
    out.to_vec()
}
