//! One stream of a connection: its window, its events, its end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kiln_protocol::{
    Channel, Control, Failure, Frame, ReceiveWindow, Reply, WINDOW, WindowExceeded,
};
use tokio::sync::{Semaphore, mpsc};

use super::error::AgentError;
use super::link::Link;

/// Bytes that one `Data` frame of the host carries at most: small enough that streams take turns.
const CHUNK: usize = 32 * 1024;

/// How long an agent may take over one answer, one piece of a file, or to make room for one: longer than
/// a sandbox is held still for a snapshot, but not for ever.
pub(super) const PATIENCE: Duration = Duration::from_mins(5);

/// Data frames below this size are copied out of the buffer that they were read into: a frame of one
/// byte must not keep the memory of a whole buffer while it waits.
const SMALL: usize = 4096;

/// Characters of an agent's message that are kept.
const MAX_MESSAGE: usize = 4096;

/// What arrives on a stream.
#[derive(Debug)]
pub(super) enum Event {
    Data(Channel, Bytes),
    Reply(Reply),
}

/// Words of a guest, fit for errors and logs: of bounded length, without control characters.
pub(super) fn printable(message: &str) -> String {
    let clean = |character: char| if character.is_control() { '\u{fffd}' } else { character };
    message.chars().take(MAX_MESSAGE).map(clean).collect()
}

/// How a stream ended other than well.
#[derive(Debug)]
pub(super) enum StreamEnd {
    Lost(AgentError),
    Failed(Failure),
    Unexpected(&'static str),
}

/// Flow control of both directions.
#[derive(Debug)]
struct Flow {
    credit: Semaphore,
    window: Mutex<ReceiveWindow>,
}

/// The connection's half of a stream.
pub(super) struct Route {
    events: mpsc::UnboundedSender<Event>,
    flow: Arc<Flow>,
    replied: bool,
}

/// The user's half, before it has an id.
pub(super) struct Half {
    events: mpsc::UnboundedReceiver<Event>,
    flow: Arc<Flow>,
}

impl Route {
    pub(super) fn new() -> (Self, Half) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let flow =
            Arc::new(Flow { credit: Semaphore::new(WINDOW as usize), window: Mutex::default() });
        let half = Half { events: receiver, flow: Arc::clone(&flow) };
        (Self { events: sender, flow, replied: false }, half)
    }

    pub(super) fn data(&mut self, channel: Channel, bytes: Bytes) -> Result<(), WindowExceeded> {
        let mut window = self.flow.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.arrived(bytes.len() as u32)?;
        let bytes = if bytes.len() < SMALL { Bytes::copy_from_slice(&bytes) } else { bytes };
        let _receiver_may_be_gone = self.events.send(Event::Data(channel, bytes));
        Ok(())
    }

    /// At most one reply comes before the final one, so that replies need no flow control.
    pub(super) fn reply(&mut self, mut reply: Reply) -> Result<(), String> {
        if let Reply::Failed { failure } = &mut reply {
            let (Failure::Start { message, .. }
            | Failure::File { message, .. }
            | Failure::Refused { message }) = failure;
            *message = printable(message);
        }
        if self.replied && !reply.is_final() {
            return Err("a second reply that is not the last".to_owned());
        }
        self.replied = true;
        let _receiver_may_be_gone = self.events.send(Event::Reply(reply));
        Ok(())
    }

    pub(super) fn credit(&self, bytes: u32) -> Result<(), String> {
        let bytes = bytes as usize;
        if self.flow.credit.available_permits() + bytes > WINDOW as usize {
            return Err(format!("credit of {bytes} bytes is above the window"));
        }
        self.flow.credit.add_permits(bytes);
        Ok(())
    }

    /// Wakes whoever waits for credit.
    pub(super) fn end(self) {
        self.flow.credit.close();
    }
}

/// Sends on a stream.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    link: Link,
    id: u32,
    flow: Arc<Flow>,
}

impl Sender {
    /// Sends bytes as the window allows. [`AgentError::Ended`] after the stream's end.
    pub(super) async fn data(&self, mut bytes: Bytes) -> Result<(), AgentError> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            let Ok(permit) = self.flow.credit.acquire_many(chunk.len() as u32).await else {
                return Err(self.ended());
            };
            permit.forget();
            let room = self.link.room(chunk.len()).await?;
            let frame = Frame::Data { stream: self.id, channel: Channel::Input, bytes: chunk };
            self.link.send_data(&frame, room)?;
        }
        Ok(())
    }

    pub(super) fn end(&self) -> Result<(), AgentError> {
        self.send(&Frame::End { stream: self.id, channel: Channel::Input })
    }

    pub(super) fn control(&self, control: Control) -> Result<(), AgentError> {
        self.send(&Frame::Control { stream: self.id, control })
    }

    fn send(&self, frame: &Frame) -> Result<(), AgentError> {
        if self.flow.credit.is_closed() {
            return Err(self.ended());
        }
        self.link.send(frame)
    }

    fn ended(&self) -> AgentError {
        if self.link.lost_reason().is_some() { self.link.lost() } else { AgentError::Ended }
    }
}

/// Receives on a stream. Dropped before the end, it tells the agent to drop further output.
#[derive(Debug)]
pub(super) struct Stream {
    sender: Sender,
    events: mpsc::UnboundedReceiver<Event>,
    ended: bool,
}

impl Stream {
    pub(super) fn new(link: Link, id: u32, half: Half) -> Self {
        let sender = Sender { link, id, flow: half.flow };
        Self { sender, events: half.events, ended: false }
    }

    pub(super) fn sender(&self) -> &Sender {
        &self.sender
    }

    /// The next event; after the final reply an error.
    pub(super) async fn next(&mut self) -> Result<Event, StreamEnd> {
        let Some(event) = self.events.recv().await else {
            self.ended = true;
            return Err(StreamEnd::Lost(self.sender.link.lost()));
        };
        match &event {
            Event::Data(_, bytes) => self.consumed(bytes.len() as u32),
            Event::Reply(reply) => self.ended = reply.is_final(),
        }
        Ok(event)
    }

    /// As [`Self::next`], within [`PATIENCE`]. `operation` is for the error.
    pub(super) async fn answer(&mut self, operation: &'static str) -> Result<Event, StreamEnd> {
        self.answer_within(operation, PATIENCE).await
    }

    async fn answer_within(
        &mut self,
        operation: &'static str,
        deadline: Duration,
    ) -> Result<Event, StreamEnd> {
        match tokio::time::timeout(deadline, self.next()).await {
            Ok(event) => event,
            Err(_) => Err(StreamEnd::Lost(AgentError::Unanswered { operation, after: deadline })),
        }
    }

    /// Waits for `done`.
    pub(super) async fn finish(
        &mut self,
        operation: &'static str,
        deadline: Duration,
    ) -> Result<(), StreamEnd> {
        match self.answer_within(operation, deadline).await? {
            Event::Reply(Reply::Done {}) => Ok(()),
            Event::Reply(Reply::Failed { failure }) => Err(StreamEnd::Failed(failure)),
            Event::Reply(_) => Err(StreamEnd::Unexpected("it answered something else")),
            Event::Data(..) => Err(StreamEnd::Unexpected("it answered with data")),
        }
    }

    fn consumed(&self, bytes: u32) {
        let mut window = self.sender.flow.window.lock().unwrap_or_else(PoisonError::into_inner);
        // Not after the end: the agent has forgotten the stream.
        if let Some(bytes) = window.consumed(bytes)
            && !self.sender.flow.credit.is_closed()
        {
            let _a_lost_link_shows_in_next =
                self.sender.link.send(&Frame::Credit { stream: self.sender.id, bytes });
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.ended && !self.sender.flow.credit.is_closed() {
            let _nothing_to_tell_a_lost_agent =
                self.sender.link.send(&Frame::Close { stream: self.sender.id });
        }
    }
}
