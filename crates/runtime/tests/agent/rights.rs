//! Agents with few rights and few resources, and the socket that they inherit.

use bytes::Bytes;
use kiln_runtime::agent::{AgentError, ExecSpec, StartErrorKind};

use crate::guest::{Guest, command, is_root, sh, skip};

#[tokio::test]
async fn an_inherited_socket_is_served_and_not_passed_on() {
    let guest = Guest::inheriting().await;
    let open = guest.script("readlink /proc/self/fd/*; true").await;
    assert!(!open.contains("socket:"), "{open}");
    drop(guest.reconnect().await);
    guest.reconnect().await.ping().await.unwrap();
}

#[tokio::test]
async fn capabilities_of_an_administrator_are_not_needed() {
    if !is_root() {
        return skip("dropping capabilities needs root");
    }
    let drop = "--bounding-set=-sys_admin,-sys_ptrace,-sys_resource,-sys_nice,-net_admin,-syslog";
    let guest = Guest::through(&["setpriv", drop]).await;
    let bounding = guest.script("grep CapEff /proc/self/status").await;
    assert!(!bounding.contains("ffffff"), "{bounding}");
    let as_user = ExecSpec { user: Some("daemon".into()), pty: Some((3, 4)), ..sh("id -u; tty") };
    let output = guest.run(as_user).await;
    assert_eq!(output.status.code, 0, "{output:?}");
    let deaf = sh("trap '' TERM; (setsid sleep 1000 &); sleep 1000");
    let timeout = Some(std::time::Duration::from_millis(100));
    assert!(guest.run(ExecSpec { timeout, ..deaf }).await.status.timed_out);
    guest.agent.sync().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_is_not_root_runs_programs_as_itself_only() {
    if !is_root() {
        return skip("becoming somebody needs root");
    }
    let guest =
        Guest::through(&["setpriv", "--reuid=4321", "--regid=8765", "--clear-groups"]).await;
    let own = ExecSpec { user: Some("4321:8765".into()), ..sh("id -u") };
    assert_eq!(guest.run(own).await.stdout, b"4321\n");
    let error = guest.agent.exec(command(&["true"])).await.unwrap_err();
    assert!(
        matches!(&error, AgentError::Start { kind: StartErrorKind::UserNotPermitted, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_guest_without_processes_left_still_has_its_agent() {
    if !is_root() {
        return skip("becoming somebody needs root");
    }
    // The limit counts the agent, its file thread, and nothing else of that user.
    let who = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];
    let limited = [&who[..], &["prlimit", "--nproc=2"]].concat();
    let guest = Guest::through(&limited).await;
    let own = ExecSpec { user: Some("54321:54321".into()), ..command(&["true"]) };
    let error = guest.agent.exec(own).await.unwrap_err();
    assert!(
        matches!(&error, AgentError::Start { kind: StartErrorKind::ResourceLimit, .. }),
        "{error:?}"
    );
    for number in 0..20 {
        let name = format!("file-{number}");
        let mut writer = guest.agent.write_file(guest.directory.path(), &name, None).await.unwrap();
        writer.write(Bytes::from_static(b"x")).await.unwrap();
        writer.finish().await.unwrap();
    }
    let lists = (0..20).map(|_| {
        let (agent, path) = (guest.agent.clone(), guest.directory.path().to_owned());
        tokio::spawn(async move { agent.list("/", path).await.unwrap().len() })
    });
    for list in lists.collect::<Vec<_>>() {
        assert_eq!(list.await.unwrap(), 22);
    }
}
