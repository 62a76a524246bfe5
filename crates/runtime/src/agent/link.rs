//! One connection: its reader, its writer, and the table of open streams.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use kiln_protocol::{Decoder, EncodeError, Frame, MAX_FRAME, Request, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::error::AgentError;
use super::stream::{Route, Stream, StreamEnd};

/// Bytes of data that may wait for an agent to read them. More is not taken from whoever sends: an agent
/// can give credit for what it never reads.
const ROOM: usize = 1024 * 1024;
/// Bytes of all else that may wait before new requests are refused.
const WAITING_MAX: usize = 16 * 1024 * 1024;
/// Streams that may be open at a time; an agent that answers nothing must not collect them.
const STREAMS_MAX: usize = 4096;

/// A handle on a connection. The connection closes with the last one.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    outgoing: mpsc::UnboundedSender<Item>,
    /// Bytes in `outgoing`.
    waiting: Arc<AtomicUsize>,
    room: Arc<Semaphore>,
    table: Arc<Table>,
    next_stream: AtomicU32,
    next_ping: AtomicU64,
    reader: JoinHandle<()>,
}

/// One frame to be written.
struct Item {
    bytes: Bytes,
    /// Given back when it has been written.
    _room: Option<OwnedSemaphorePermit>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends by itself when it has sent what is queued.
        self.reader.abort();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("lost", &self.lost_reason()).finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(super) struct Table(Mutex<State>);

#[derive(Default)]
struct State {
    streams: HashMap<u32, Route>,
    pings: HashMap<u64, oneshot::Sender<()>>,
    lost: Option<Arc<str>>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Ends every stream. The first reason stays.
    fn lose(&self, reason: String) {
        let mut state = self.lock();
        if state.lost.is_none() {
            tracing::debug!(reason, "agent connection ended");
            state.lost = Some(reason.into());
        }
        state.pings.clear();
        for (_, route) in state.streams.drain() {
            route.end();
        }
    }

    /// Hands a frame to whom it is for; an error means that the agent broke the protocol.
    fn dispatch(&self, frame: Frame) -> Result<(), String> {
        let mut state = self.lock();
        match frame {
            Frame::Pong(value) => {
                if let Some(waiting) = state.pings.remove(&value) {
                    let _gone_is_fine = waiting.send(());
                }
                Ok(())
            }
            Frame::Data { stream, channel, bytes } => match state.streams.get_mut(&stream) {
                Some(route) => route.data(channel, bytes).map_err(|error| error.to_string()),
                None => Err(format!("data on stream {stream}, which is not open")),
            },
            Frame::Reply { stream, reply } => {
                let last = reply.is_final();
                let Some(route) = state.streams.get_mut(&stream) else {
                    return Err(format!("a reply on stream {stream}, which is not open"));
                };
                route.reply(reply)?;
                if last && let Some(route) = state.streams.remove(&stream) {
                    route.end();
                }
                Ok(())
            }
            Frame::Credit { stream, bytes } => match state.streams.get(&stream) {
                Some(route) => route.credit(bytes),
                None => Err(format!("credit on stream {stream}, which is not open")),
            },
            // The reply that follows says the same; nothing waits for single lanes.
            Frame::End { .. } => Ok(()),
            other => Err(format!("an unexpected frame: {}", frame_name(&other))),
        }
    }
}

impl Link {
    /// Takes over a connection after its handshake.
    pub(super) fn start<R, W>(read: R, write: W, decoder: Decoder) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let table = Arc::new(Table::default());
        let (outgoing, queue) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        tokio::spawn(write_frames(write, queue, Arc::clone(&waiting), Arc::clone(&table)));
        let reader = tokio::spawn(read_frames(read, decoder, Arc::clone(&table)));
        Self(Arc::new(Inner {
            outgoing,
            waiting,
            room: Arc::new(Semaphore::new(ROOM)),
            table,
            next_stream: AtomicU32::new(1),
            next_ping: AtomicU64::new(1),
            reader,
        }))
    }

    /// Why the connection is gone, if it is.
    pub(super) fn lost_reason(&self) -> Option<Arc<str>> {
        self.0.table.lock().lost.clone()
    }

    /// The error of a connection that is gone.
    pub(super) fn lost(&self) -> AgentError {
        let reason = self.lost_reason().unwrap_or_else(|| "it was closed".into());
        AgentError::Lost { reason }
    }

    /// Queues a frame that is not data. What an agent that does not read could collect without bound
    /// is refused.
    pub(super) fn send(&self, frame: &Frame) -> Result<(), AgentError> {
        let waiting = self.0.waiting.load(Ordering::Relaxed);
        if waiting > WAITING_MAX && matches!(frame, Frame::Request { .. } | Frame::Control { .. }) {
            let message = format!("it has not yet read {waiting} bytes of earlier messages");
            return Err(AgentError::Request { operation: frame_name(frame), message });
        }
        self.push(frame, None)
    }

    /// Room for `bytes` of data.
    pub(super) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AgentError> {
        let room = Arc::clone(&self.0.room).acquire_many_owned(bytes as u32).await;
        room.map_err(|_| self.lost())
    }

    /// Queues a frame of data.
    pub(super) fn send_data(
        &self,
        frame: &Frame,
        room: OwnedSemaphorePermit,
    ) -> Result<(), AgentError> {
        self.push(frame, Some(room))
    }

    fn push(&self, frame: &Frame, room: Option<OwnedSemaphorePermit>) -> Result<(), AgentError> {
        let mut bytes = BytesMut::new();
        encode(frame, &mut bytes).map_err(|error| too_large(frame, error))?;
        self.0.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        let item = Item { bytes: bytes.freeze(), _room: room };
        self.0.outgoing.send(item).map_err(|_| self.lost())
    }

    /// Opens a stream.
    pub(super) fn open(&self, request: Request) -> Result<Stream, AgentError> {
        let (id, half) = {
            let mut state = self.0.table.lock();
            if let Some(reason) = state.lost.clone() {
                return Err(AgentError::Lost { reason });
            }
            if state.streams.len() >= STREAMS_MAX {
                let message = format!("{STREAMS_MAX} earlier ones have no answer yet");
                return Err(AgentError::Request { operation: "the request", message });
            }
            let id = loop {
                let id = self.0.next_stream.fetch_add(1, Ordering::Relaxed);
                if id != 0 && !state.streams.contains_key(&id) {
                    break id;
                }
            };
            let (route, half) = Route::new();
            state.streams.insert(id, route);
            (id, half)
        };
        if let Err(error) = self.send(&Frame::Request { stream: id, request }) {
            self.0.table.lock().streams.remove(&id);
            return Err(error);
        }
        Ok(Stream::new(self.clone(), id, half))
    }

    pub(super) async fn ping(&self) -> Result<(), AgentError> {
        let value = self.0.next_ping.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        {
            let mut state = self.0.table.lock();
            if let Some(reason) = state.lost.clone() {
                return Err(AgentError::Lost { reason });
            }
            state.pings.retain(|_, waiting| !waiting.is_closed());
            state.pings.insert(value, answered);
        }
        self.send(&Frame::Ping(value))?;
        answer.await.map_err(|_| self.lost())
    }
}

async fn read_frames<R: AsyncRead + Unpin>(mut read: R, mut decoder: Decoder, table: Arc<Table>) {
    let reason = loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => {
                if let Err(fault) = table.dispatch(frame) {
                    break format!("the agent broke the protocol: {fault}");
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => break format!("the agent broke the protocol: {}", chain(&error)),
        }
        decoder.buffer().reserve(64 * 1024);
        match read.read_buf(decoder.buffer()).await {
            Ok(0) => break "the agent closed it".to_owned(),
            Ok(_) => {}
            Err(error) => break format!("reading failed: {error}"),
        }
    };
    table.lose(reason);
}

async fn write_frames<W: AsyncWrite + Unpin>(
    mut write: W,
    mut queue: mpsc::UnboundedReceiver<Item>,
    waiting: Arc<AtomicUsize>,
    table: Arc<Table>,
) {
    while let Some(item) = queue.recv().await {
        if let Err(error) = write.write_all(&item.bytes).await {
            table.lose(format!("writing failed: {error}"));
            return;
        }
        waiting.fetch_sub(item.bytes.len(), Ordering::Relaxed);
    }
    let _peer_may_be_gone = write.shutdown().await;
}

fn too_large(frame: &Frame, error: EncodeError) -> AgentError {
    let (EncodeError::TooLarge { size } | EncodeError::DataSize { size }) = error;
    AgentError::TooLarge { what: frame_name(frame), size, limit: MAX_FRAME }
}

pub(super) fn frame_name(frame: &Frame) -> &'static str {
    match frame {
        Frame::Hello(_) => "the hello",
        Frame::Welcome(_) => "a welcome",
        Frame::Refuse(_) => "a refusal",
        Frame::Ping(_) => "a ping",
        Frame::Pong(_) => "a pong",
        Frame::Request { .. } => "the request",
        Frame::Control { .. } => "the control message",
        Frame::Reply { .. } => "a reply",
        Frame::Data { .. } => "data",
        Frame::End { .. } => "an end of data",
        Frame::Credit { .. } => "credit",
        Frame::Close { .. } => "a close",
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl StreamEnd {
    /// The error of a request that has no better one.
    pub(super) fn into_request_error(self, operation: &'static str) -> AgentError {
        match self {
            Self::Lost(error) => error,
            Self::Failed(failure) => {
                let (kiln_protocol::Failure::Start { message, .. }
                | kiln_protocol::Failure::File { message, .. }
                | kiln_protocol::Failure::Refused { message }) = failure;
                AgentError::Request { operation, message }
            }
            Self::Unexpected(message) => {
                AgentError::Request { operation, message: message.to_owned() }
            }
        }
    }
}
