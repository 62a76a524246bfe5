//! Connections: they come and go, the sandbox stays.

use std::time::{Duration, Instant};

use kiln_runtime::agent::{Agent, AgentError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::guest::{Guest, command, exit, read_until, sh, until};

#[tokio::test]
async fn a_process_outlives_the_connection_that_started_it() {
    let guest = Guest::start().await;
    let first = guest.reconnect().await;
    let file = guest.path("done");
    // Writes more than any buffer holds after the connection has gone.
    let script = format!(
        "echo ready; read line; echo \"eof=$?\"; head -c 5000000 /dev/zero; echo end > {}",
        file.display()
    );
    let (input, mut output, control) = first.exec(sh(&script)).await.unwrap().into_parts();
    read_until(&mut output, "ready").await;
    drop((first, input, output, control));
    until("it ends", async || file.exists().then_some(())).await;
    guest.agent.ping().await.unwrap();
}

#[tokio::test]
async fn a_later_connection_finds_what_an_earlier_one_left() {
    let guest = Guest::start().await;
    let first = guest.reconnect().await;
    let exec = first.exec(command(&["sleep", "1000"])).await.unwrap();
    let pid = exec.pid();
    drop((exec, first));
    let second = guest.reconnect().await;
    let probe = format!("kill -0 {pid}");
    let output = second.run(sh(&probe), bytes::Bytes::new(), 100).await.unwrap();
    assert_eq!(output.status.code, 0, "it has died with its connection");
    guest.script(&format!("kill {pid}")).await;
}

#[tokio::test]
async fn a_lost_agent_is_told_to_everyone() {
    let mut guest = Guest::start().await;
    let exec = guest.agent.exec(command(&["sleep", "1000"])).await.unwrap();
    let pid = exec.pid();
    let (_input, mut output, control) = exec.into_parts();
    let agent = rustix::process::Pid::from_raw(guest.pid() as i32).unwrap();
    rustix::process::kill_process(agent, rustix::process::Signal::KILL).unwrap();
    assert!(matches!(output.next().await, Some(Err(AgentError::Lost { .. }))));
    assert!(output.next().await.is_none());
    assert!(matches!(control.kill(), Err(AgentError::Lost { .. })));
    assert!(matches!(guest.agent.ping().await, Err(AgentError::Lost { .. })));
    assert!(matches!(guest.agent.list("/", "/").await, Err(AgentError::Lost { .. })));
    assert!(guest.agent.is_lost());
    guest.wait().await;
    let left = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn connecting_waits_for_the_agent_and_gives_up_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = directory.path().join("nobody");
    let before = Instant::now();
    let error = Agent::connect(&nobody, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(&error, AgentError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("nobody"), "{error}");
    // Accepts, but never answers.
    let mute = directory.path().join("mute");
    let _listener = std::os::unix::net::UnixListener::bind(&mute).unwrap();
    let error = Agent::connect(&mute, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(&error, AgentError::Connect { .. }), "{error:?}");
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn something_else_than_an_agent_is_recognised() {
    let answers: [&[u8]; 3] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\x05\x63\0\0\0\0",
        b"\0\0\0\x22\x02\0\0\0\0{\"version\":99,\"agent\":\"9.9.9\"}",
    ];
    for answer in answers {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let serving = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(answer).await.unwrap();
            let mut rest = Vec::new();
            let _closed = socket.read_to_end(&mut rest).await;
        });
        let error = Agent::connect(&path, Duration::from_secs(10)).await.unwrap_err();
        assert!(matches!(&error, AgentError::Handshake { .. }), "{answer:?}: {error:?}");
        serving.abort();
    }
}

#[tokio::test]
async fn a_socket_path_may_be_longer_than_an_address() {
    let guest = Guest::start().await;
    let mut long = guest.path("d");
    while long.as_os_str().len() < 300 {
        long.push("deep-directory");
    }
    std::fs::create_dir_all(&long).unwrap();
    long.push("agent.sock");
    std::fs::rename(&guest.socket, &long).unwrap();
    let agent = Agent::connect(&long, Duration::from_secs(10)).await.unwrap();
    agent.ping().await.unwrap();
}

#[tokio::test]
async fn garbage_ends_its_connection_and_no_other() {
    let guest = Guest::start().await;
    let inputs: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        b"\0\0\0\x05\x63\0\0\0\0",
        // A data frame before the hello.
        b"\0\0\0\x07\x09\0\0\0\x01\0x",
    ];
    for input in inputs {
        let mut socket = UnixStream::connect(&guest.socket).await.unwrap();
        socket.write_all(input).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer));
        let _reset_or_end = closed.await.expect("the agent closes it");
        guest.agent.ping().await.unwrap();
    }
}

#[tokio::test]
async fn versions_without_a_common_one_are_refused_in_words() {
    let guest = Guest::start().await;
    let mut socket = UnixStream::connect(&guest.socket).await.unwrap();
    let hello = br#"{"min_version":7,"max_version":9}"#;
    let mut frame = (5 + hello.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&[1, 0, 0, 0, 0]);
    frame.extend_from_slice(hello);
    socket.write_all(&frame).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("the host speaks 7 to 9"), "{text}");
}

#[tokio::test]
async fn handles_are_cheap_and_share_one_connection() {
    let guest = Guest::start().await;
    let agent = guest.reconnect().await;
    let (_input, mut output, _) =
        agent.clone().exec(sh("sleep 0.1; exit 6")).await.unwrap().into_parts();
    // The running process keeps the connection.
    drop(agent);
    assert_eq!(exit(&mut output).await.code, 6);
}
