//! One connection of the host: hello, then frames to streams.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use kiln_protocol::{Channel, Decoder, Failure, Frame, Refuse, Reply, Request, Welcome, negotiate};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;
use tokio::task::spawn_local;

use crate::agent::Agent;
use crate::outbox::Outbox;
use crate::stream::{Inbound, Route, Stream};
use crate::{disks, exec, files, shutdown};

/// Bytes read at a time: small, since every idle connection holds them.
const READ: usize = 16 * 1024;

struct Connection {
    agent: Rc<Agent>,
    outbox: Rc<Outbox>,
    streams: RefCell<HashMap<u32, Route>>,
}

/// Serves a connection to its end. What it started goes on, with its output dropped.
pub(crate) async fn serve(agent: Rc<Agent>, socket: UnixStream) {
    let (read, write) = socket.into_split();
    let (outbox, queue) = Outbox::new();
    let outbox = Rc::new(outbox);
    let writing = Rc::clone(&outbox);
    spawn_local(async move { writing.write(queue, write).await });
    let connection = Rc::new(Connection { agent, outbox, streams: RefCell::default() });
    if let Err(fault) = read_frames(&connection, read).await {
        crate::complain(&format!("connection closed: {fault}"));
    }
    for (_, route) in connection.streams.borrow_mut().drain() {
        route.stream.close();
    }
    connection.outbox.close();
}

async fn read_frames<R>(connection: &Rc<Connection>, mut read: R) -> Result<(), String>
where
    R: AsyncRead + Unpin,
{
    let mut decoder = Decoder::default();
    let mut greeted = false;
    loop {
        while let Some(frame) = decoder.next_frame().map_err(|error| describe(&error))? {
            match frame {
                Frame::Hello(hello) if !greeted => match negotiate(&hello) {
                    Ok(version) => {
                        greeted = true;
                        let agent = env!("CARGO_PKG_VERSION").to_owned();
                        connection.send(&Frame::Welcome(Welcome { version, agent }));
                    }
                    Err(error) => {
                        let message = error.to_string();
                        connection.send(&Frame::Refuse(Refuse { message: message.clone() }));
                        connection.outbox.flush().await;
                        return Err(message);
                    }
                },
                frame if greeted => connection.dispatch(frame)?,
                _ => return Err("the host did not start with a hello".to_owned()),
            }
        }
        decoder.buffer().reserve(READ);
        match read.read_buf(decoder.buffer()).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Connection {
    fn send(&self, frame: &Frame) {
        let _always_fits = self.outbox.send(frame);
    }

    /// Frames for a stream that has just ended are no fault: they crossed its final reply.
    fn dispatch(self: &Rc<Self>, frame: Frame) -> Result<(), String> {
        let streams = self.streams.borrow();
        match frame {
            Frame::Ping(value) => self.send(&Frame::Pong(value)),
            Frame::Request { stream, request } => {
                if streams.contains_key(&stream) {
                    return Err(format!("stream {stream} is open already"));
                }
                drop(streams);
                self.start(stream, request);
            }
            Frame::Control { stream, control } => {
                if let Some(route) = streams.get(&stream) {
                    route.control(control);
                }
            }
            Frame::Data { stream, channel: Channel::Input, bytes } => {
                if let Some(route) = streams.get(&stream) {
                    route.data(bytes).map_err(|error| error.to_string())?;
                }
            }
            Frame::End { stream, channel: Channel::Input } => {
                if let Some(route) = streams.get(&stream) {
                    route.end();
                }
            }
            Frame::Credit { stream, bytes } => {
                if let Some(route) = streams.get(&stream) {
                    route.credit(bytes)?;
                }
            }
            Frame::Close { stream } => {
                if let Some(route) = streams.get(&stream) {
                    route.stream.close();
                }
            }
            _ => return Err("a frame that only an agent sends".to_owned()),
        }
        Ok(())
    }

    fn start(self: &Rc<Self>, id: u32, request: Request) {
        let (route, inbound) = Stream::open(id, Rc::clone(&self.outbox));
        let stream = Rc::clone(&route.stream);
        self.streams.borrow_mut().insert(id, route);
        self.agent.stream_opened();
        let connection = Rc::clone(self);
        spawn_local(async move {
            let stopping = matches!(request, Request::Shutdown { .. });
            let reply = connection.handle(&stream, inbound, request).await;
            let stopped = stopping && reply == Reply::Done {};
            connection.streams.borrow_mut().remove(&id);
            stream.reply(reply);
            connection.agent.stream_closed();
            if stopped {
                connection.outbox.flush().await;
                shutdown::exit();
            }
        });
    }

    async fn handle(&self, stream: &Rc<Stream>, inbound: Inbound, request: Request) -> Reply {
        match request {
            Request::Exec(request) => exec::run(&self.agent, stream, inbound, *request).await,
            Request::Sync {} => match tokio::task::spawn_blocking(disks::sync).await {
                Ok(Ok(())) => Reply::Done {},
                Ok(Err(error)) => refused(error.to_string()),
                Err(error) => refused(error.to_string()),
            },
            Request::Shutdown { grace_ms } => {
                let grace = std::time::Duration::from_millis(grace_ms);
                if !shutdown::run(&self.agent, grace).await {
                    // Another one is on its way; its end is the answer to this one too.
                    std::future::pending::<()>().await;
                }
                Reply::Done {}
            }
            request => files::run(stream, inbound, request).await,
        }
    }
}

fn refused(message: String) -> Reply {
    Reply::Failed { failure: Failure::Refused { message } }
}
