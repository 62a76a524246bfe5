//! Processes that do not start: every cause is told apart and named.

use std::os::unix::fs::PermissionsExt;

use kiln_runtime::agent::{AgentError, ExecSpec, StartErrorKind};

use crate::guest::{Guest, command, is_root, skip};

async fn failure(guest: &Guest, spec: ExecSpec) -> (StartErrorKind, String) {
    match guest.agent.exec(spec.clone()).await {
        Err(error @ AgentError::Start { kind, .. }) => (kind, error.to_string()),
        other => panic!("{spec:?}: {other:?}"),
    }
}

fn file(guest: &Guest, name: &str, content: &str, mode: u32) -> String {
    let path = guest.path(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn causes_are_told_apart_and_named() {
    let guest = Guest::start().await;
    let plain = file(&guest, "plain", "x", 0o644);
    let no_format = file(&guest, "no-format", "plain words\n", 0o755);
    let script = file(&guest, "script", "#!/no/such/interpreter -x\n", 0o755);
    let directory = guest.directory.path().to_str().unwrap().to_owned();
    let of = |argv0: &str| command(&[argv0]);
    let cases = [
        (of("no-such-program"), StartErrorKind::NotFound, "PATH=/usr/local/sbin"),
        (of("/no/such/program"), StartErrorKind::NotFound, "no such file"),
        (of(&script), StartErrorKind::NotFound, "`/no/such/interpreter -x`"),
        (of(&plain), StartErrorKind::NotExecutable, "plain"),
        (of(&no_format), StartErrorKind::NotExecutable, "`#!`"),
        (of(&directory), StartErrorKind::NotExecutable, "is a directory"),
        (of(""), StartErrorKind::InvalidArgument, "argv[0]"),
        (of("nul\0"), StartErrorKind::InvalidArgument, "argv[0]"),
        (ExecSpec::default(), StartErrorKind::InvalidArgument, "argv is empty"),
        (
            ExecSpec { cwd: Some("/no/such/dir".into()), ..of("true") },
            StartErrorKind::CwdNotFound,
            "/no/such/dir",
        ),
        (
            ExecSpec { cwd: Some(plain.clone()), ..of("true") },
            StartErrorKind::CwdNotUsable,
            "not a directory",
        ),
        (
            ExecSpec { cwd: Some("relative".into()), ..of("true") },
            StartErrorKind::InvalidArgument,
            "`relative` is not absolute",
        ),
        (
            ExecSpec { user: Some("nobody-here".into()), ..of("true") },
            StartErrorKind::UnknownUser,
            "`nobody-here`",
        ),
        (
            ExecSpec { user: Some("root:no-group".into()), ..of("true") },
            StartErrorKind::UnknownGroup,
            "`no-group`",
        ),
        (
            ExecSpec { env: vec![("A=B".into(), String::new())], ..of("true") },
            StartErrorKind::InvalidArgument,
            "A=B",
        ),
        (
            command(&["true", &"x".repeat(200_000)]),
            StartErrorKind::TooBig,
            "larger than the kernel",
        ),
    ];
    for (spec, kind, named) in cases {
        let (found, message) = failure(&guest, spec).await;
        assert_eq!(found, kind, "{message}");
        assert!(message.contains(named), "{message} does not name {named}");
    }
}

#[tokio::test]
async fn what_the_user_may_not_do_is_said() {
    if !is_root() {
        return skip("changing users needs root");
    }
    let guest = Guest::start().await;
    let as_user = |argv0: &str| ExecSpec { user: Some("4321".into()), ..command(&[argv0]) };
    let alone = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(guest.directory.path(), alone).unwrap();
    let secret = file(&guest, "secret", "#!/bin/sh\n", 0o755);
    let (kind, message) = failure(&guest, as_user(&secret)).await;
    assert_eq!(kind, StartErrorKind::NotExecutable);
    assert!(message.contains("user `4321` may not execute"), "{message}");
    let cwd = Some(guest.directory.path().to_str().unwrap().to_owned());
    let (kind, message) = failure(&guest, ExecSpec { cwd, ..as_user("true") }).await;
    assert_eq!(kind, StartErrorKind::CwdNotUsable);
    assert!(message.contains("user `4321` may not enter"), "{message}");
}

#[tokio::test]
async fn a_request_larger_than_a_message_is_refused_here() {
    let guest = Guest::start().await;
    let spec = command(&["true", &"x".repeat(2_000_000)]);
    match guest.agent.exec(spec).await {
        Err(AgentError::TooLarge { size, limit, .. }) => assert!(size > limit),
        other => panic!("{other:?}"),
    }
    guest.agent.ping().await.unwrap();
}
