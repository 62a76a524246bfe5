//! What a connection still has to send.
//!
//! Replies are queued at once. Data waits for room first, so that a connection which is slow as a
//! whole holds little memory, however many streams it has.

use std::cell::RefCell;

use bytes::BytesMut;
use kiln_protocol::{EncodeError, Frame, encode};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc};

/// Bytes of data that may wait.
const ROOM: usize = 512 * 1024;

#[derive(Debug)]
struct Item {
    bytes: BytesMut,
    room: usize,
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: RefCell<Option<mpsc::UnboundedSender<Item>>>,
    room: Semaphore,
    written: Notify,
}

/// The end that a connection writes from.
#[derive(Debug)]
pub(crate) struct Queue(mpsc::UnboundedReceiver<Item>);

impl Outbox {
    pub(crate) fn new() -> (Self, Queue) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let outbox = Self {
            queue: RefCell::new(Some(sender)),
            room: Semaphore::new(ROOM),
            written: Notify::new(),
        };
        (outbox, Queue(receiver))
    }

    /// Queues a frame; nothing happens when the connection is gone.
    pub(crate) fn send(&self, frame: &Frame) -> Result<(), EncodeError> {
        self.push(frame, 0)
    }

    /// Queues a data frame when there is room for it.
    pub(crate) async fn send_data(&self, frame: &Frame, size: usize) -> Result<(), EncodeError> {
        if let Ok(permit) = self.room.acquire_many(size as u32).await {
            permit.forget();
            self.push(frame, size)?;
        }
        Ok(())
    }

    fn push(&self, frame: &Frame, room: usize) -> Result<(), EncodeError> {
        if let Some(queue) = &*self.queue.borrow() {
            let mut bytes = BytesMut::new();
            encode(frame, &mut bytes)?;
            let _gone_is_fine = queue.send(Item { bytes, room });
        }
        Ok(())
    }

    /// The connection is gone: nobody waits for it any more.
    pub(crate) fn close(&self) {
        self.queue.borrow_mut().take();
        self.room.close();
        self.written.notify_one();
    }

    /// Closes for more and waits until all was written, or the connection is gone.
    pub(crate) async fn flush(&self) {
        self.queue.borrow_mut().take();
        self.written.notified().await;
    }

    /// Writes until closed or until the peer is gone.
    pub(crate) async fn write<W: AsyncWrite + Unpin>(&self, mut queue: Queue, mut socket: W) {
        while let Some(item) = queue.0.recv().await {
            if socket.write_all(&item.bytes).await.is_err() {
                break;
            }
            self.room.add_permits(item.room);
        }
        self.close();
    }
}
