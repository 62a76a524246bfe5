//! PID 1's duties, and a root with nothing in it.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use kiln_runtime::agent::{AgentError, ExecSpec, StartErrorKind};

use crate::guest::{Guest, LIMIT, command, sh, skip, until};

#[tokio::test]
async fn orphans_are_reaped_and_no_status_is_lost() {
    for pid_one in [true, false] {
        let guest = if pid_one {
            let Some(guest) = Guest::pid_one().await else { continue };
            guest
        } else {
            Guest::start().await
        };
        let orphans = "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.0$i; exit 9) & done; exit 7";
        for _ in 0..10 {
            assert_eq!(guest.run(sh(orphans)).await.status.code, 7);
        }
        until("no zombie is left", async || {
            let parent = guest.script("echo $PPID").await;
            let zombies = format!("ps -eo ppid,stat | grep -c '^ *{} Z' || true", parent.trim());
            (guest.script(&zombies).await.trim() == "0").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn it_is_pid_one_and_its_children_see_that() {
    let Some(guest) = Guest::pid_one().await else { return };
    assert_eq!(guest.script("echo $PPID").await, "1\n");
    // Nothing from inside kills PID 1 by force.
    guest.script("kill -KILL 1; kill -SEGV 1; true").await;
    guest.agent.ping().await.unwrap();
}

#[tokio::test]
async fn s0_9_a_root_with_busybox_alone_is_enough() {
    let Some(guest) = Guest::busybox().await else { return };
    let output = guest.run(sh("id -u; echo $HOME:$USER; ls /; exit 3")).await;
    assert_eq!(output.status.code, 3);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "0\n/:root\nagent\nbin\nproc\nrun\n");
    let as_number = ExecSpec { user: Some("12:34".into()), ..sh("id -u; id -g; id -G") };
    assert_eq!(guest.run(as_number).await.stdout, b"12\n34\n34\n");
    let cat = guest.agent.run(command(&["cat"]), Bytes::from_static(b"in"), LIMIT).await.unwrap();
    assert_eq!(cat.stdout, b"in");
    for (user, kind) in
        [("root", StartErrorKind::UnknownUser), ("0:wheel", StartErrorKind::UnknownGroup)]
    {
        let spec = ExecSpec { user: Some(user.into()), ..sh("true") };
        let error = guest.agent.exec(spec).await.unwrap_err();
        assert!(matches!(error, AgentError::Start { kind: found, .. } if found == kind));
    }
    let terminal = ExecSpec { pty: Some((1, 1)), ..sh("true") };
    let error = guest.agent.exec(terminal).await.unwrap_err();
    assert!(
        matches!(&error, AgentError::Start { kind: StartErrorKind::NoTerminal, .. }),
        "there is no /dev/ptmx: {error:?}"
    );
    let mut writer = guest.agent.write_file("/", "etc/motd", None).await.unwrap();
    writer.write(Bytes::from_static(b"hello")).await.unwrap();
    writer.finish().await.unwrap();
    let reader = guest.agent.read_file("/etc", "motd").await.unwrap();
    assert_eq!(reader.read_all(100).await.unwrap(), b"hello");
    assert_eq!(guest.agent.list("/", "etc").await.unwrap().len(), 1);
    guest.agent.sync().await.unwrap();
}

#[tokio::test]
async fn s0_9_a_root_with_another_c_library_is_no_different() {
    let loader = "/lib/ld-musl-x86_64.so.1";
    let has_compiler = Command::new("musl-gcc").arg("--version").output().is_ok();
    if !has_compiler || !Path::new(loader).exists() {
        return skip("no musl-gcc with its library");
    }
    let Some(guest) = Guest::busybox().await else { return };
    let root = guest.path("root");
    let source = guest.path("probe.c");
    std::fs::write(
        &source,
        "#include <pwd.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
         int main(void) { struct passwd *p = getpwuid(getuid());\n\
         printf(\"%s %s\\n\", p ? p->pw_name : \"nobody\", getenv(\"HOME\")); return 5; }\n",
    )
    .unwrap();
    let probe = root.join("bin/probe");
    let built = Command::new("musl-gcc").arg("-o").arg(&probe).arg(&source).status().unwrap();
    assert!(built.success());
    let missing = guest.agent.exec(command(&["probe"])).await.unwrap_err();
    assert!(missing.to_string().contains("its dynamic loader is not in"), "{missing}");
    std::fs::create_dir(root.join("lib")).unwrap();
    std::fs::copy(loader, root.join(&loader[1..])).unwrap();
    std::fs::create_dir(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/passwd"), "ada:x:7:8::/home/ada:/bin/sh\n").unwrap();
    let spec = ExecSpec { user: Some("ada".into()), ..command(&["probe"]) };
    let output = guest.run(spec).await;
    assert_eq!((output.stdout.as_slice(), output.status.code), (&b"ada /home/ada\n"[..], 5));
}
