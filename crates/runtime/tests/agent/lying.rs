//! Agents that do not do as they should: whoever speaks for a guest may be the guest itself.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kiln_protocol::{Channel, Decoder, Frame, Reply, Request, WINDOW, Welcome, encode};
use kiln_runtime::agent::{Agent, AgentError, ExecSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// The other end of a connection.
struct Liar {
    socket: DuplexStream,
    decoder: Decoder,
}

impl Liar {
    /// Connects an agent that says hello as it should.
    async fn meet() -> (Agent, Liar) {
        let (ours, socket) = duplex(64 * 1024);
        let mut liar = Liar { socket, decoder: Decoder::default() };
        let greet = async {
            assert!(matches!(liar.next().await, Some(Frame::Hello(_))));
            liar.say(&Frame::Welcome(Welcome { version: 1, agent: "0".to_owned() })).await;
        };
        let (agent, ()) = tokio::join!(Agent::over(ours, Duration::from_secs(9)), greet);
        (agent.unwrap(), liar)
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            if self.socket.read_buf(self.decoder.buffer()).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn say(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        encode(frame, &mut bytes).unwrap();
        self.socket.write_all(&bytes).await.unwrap();
    }

    /// Waits for a request and answers it.
    async fn answer(&mut self, reply: Reply) -> u32 {
        loop {
            if let Some(Frame::Request { stream, .. }) = self.next().await {
                self.say(&Frame::Reply { stream, reply }).await;
                return stream;
            }
        }
    }
}

fn command() -> ExecSpec {
    ExecSpec { argv: vec!["x".to_owned()], ..ExecSpec::default() }
}

fn unanswered<T>(result: Result<T, AgentError>) {
    let error = result.err().expect("nobody answered");
    assert!(matches!(&error, AgentError::Unanswered { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_ever() {
    let (agent, _liar) = Liar::meet().await;
    unanswered(agent.ping().await);
    unanswered(agent.exec(command()).await);
    unanswered(agent.run(command(), Bytes::new(), 10).await);
    unanswered(agent.read_file("/", "x").await);
    unanswered(agent.write_file("/", "x", None).await);
    unanswered(agent.list("/", "x").await);
    unanswered(agent.stat("/", "x").await);
    unanswered(agent.mkdir("/", "x", None).await);
    unanswered(agent.remove("/", "x", true).await);
    unanswered(agent.sync().await);
    unanswered(agent.shutdown(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn no_file_stops_in_the_middle_for_ever() {
    let (agent, mut liar) = Liar::meet().await;
    let (reader, _) =
        tokio::join!(agent.read_file("/", "x"), liar.answer(Reply::Opened { size: 9, mode: 0 }));
    unanswered(reader.unwrap().next().await.expect("not the end"));
    let (writer, _) = tokio::join!(agent.write_file("/", "x", None), liar.answer(Reply::Ready {}));
    let mut writer = writer.unwrap();
    let much = Bytes::from(vec![0; 2 * WINDOW as usize]);
    unanswered(writer.write(much).await);
    unanswered(writer.finish().await);
}

#[tokio::test(start_paused = true)]
async fn a_time_out_holds_without_the_agent() {
    let (agent, mut liar) = Liar::meet().await;
    let spec = ExecSpec { timeout: Some(Duration::from_secs(3)), ..command() };
    let run = agent.run(spec, Bytes::new(), 10);
    let (output, _) = tokio::join!(run, liar.answer(Reply::Started { pid: 7 }));
    unanswered(output);
}

#[tokio::test(start_paused = true)]
async fn credit_without_reading_does_not_fill_the_hosts_memory() {
    let (agent, mut liar) = Liar::meet().await;
    let (writer, stream) =
        tokio::join!(agent.write_file("/", "x", None), liar.answer(Reply::Ready {}));
    let mut writer = writer.unwrap();
    let piece = Bytes::from(vec![0; WINDOW as usize]);
    let mut taken = 0;
    loop {
        match writer.write(piece.clone()).await {
            Ok(()) => taken += piece.len(),
            other => break unanswered(other),
        }
        assert!(taken < 8 << 20, "{taken} bytes were taken for somebody who reads none");
        liar.say(&Frame::Credit { stream, bytes: WINDOW }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_nobody_reads_are_refused_in_the_end() {
    let (agent, _liar) = Liar::meet().await;
    let long = "x".repeat(500_000);
    for round in 0.. {
        assert!(round < 100, "{round} requests wait");
        let asked = tokio::time::timeout(Duration::from_secs(1), agent.stat("/", &long)).await;
        if let Ok(refused) = asked {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("has not yet read"), "{text}");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_never_come_do_not_pile_up() {
    let (agent, mut liar) = Liar::meet().await;
    let reading = tokio::spawn(async move { while liar.next().await.is_some() {} });
    for round in 0.. {
        assert!(round < 10_000, "{round} requests are open");
        let asked = tokio::time::timeout(Duration::from_micros(1), agent.stat("/", "x")).await;
        if let Ok(refused) = asked {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("have no answer yet"), "{text}");
            break;
        }
    }
    reading.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_outside_of_the_protocol_ends_the_connection() {
    let data = |stream, size| Frame::Data {
        stream,
        channel: Channel::Output,
        bytes: Bytes::from(vec![0; size]),
    };
    let windows = move |stream: u32| (0..5).map(move |_| data(stream, 60_000)).collect::<Vec<_>>();
    type Lie = (&'static str, Box<dyn Fn(u32) -> Vec<Frame>>);
    let lies: [Lie; 5] = [
        ("data above the window", Box::new(windows)),
        ("data for nobody", Box::new(move |stream| vec![data(stream + 50, 1)])),
        ("credit above the window", Box::new(|stream| vec![Frame::Credit { stream, bytes: 1 }])),
        (
            "three replies",
            Box::new(|stream| {
                let reply = Frame::Reply { stream, reply: Reply::Started { pid: 1 } };
                vec![reply.clone(), reply]
            }),
        ),
        (
            "a request",
            Box::new(|stream| vec![Frame::Request { stream, request: Request::Sync {} }]),
        ),
    ];
    for (name, frames) in lies {
        let (agent, mut liar) = Liar::meet().await;
        let (exec, stream) =
            tokio::join!(agent.exec(command()), liar.answer(Reply::Started { pid: 1 }));
        let _exec = exec.unwrap();
        for frame in frames(stream) {
            liar.say(&frame).await;
        }
        let list = agent.list("/", Path::new("x")).await;
        assert!(matches!(list, Err(AgentError::Lost { .. })), "{name}: {list:?}");
    }
}
