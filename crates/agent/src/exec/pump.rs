//! Bytes between a process and its stream.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use kiln_protocol::{Channel, MAX_DATA};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout_at};

use super::launch::{Descriptor, Input};
use super::terminal;
use crate::stream::{self, Stream};

/// How long after the end of a process its pipes may stay open before the command is over.
pub(crate) const GRACE: Duration = Duration::from_millis(100);

/// One look at a descriptor.
enum Read {
    Bytes(Bytes),
    /// Nothing there for now.
    Empty,
    /// Nothing will ever come.
    End,
}

/// Carries output until its end, or the end of the process and what the module above says.
pub(crate) async fn carry(
    descriptor: Descriptor,
    stream: &Stream,
    channel: Channel,
    mut ended: watch::Receiver<bool>,
) {
    // Asked before each look at the pipe: somebody else may write to it without a pause.
    while !*ended.borrow() {
        tokio::select! {
            biased;
            read = read(&descriptor) => match read {
                Some(bytes) => stream.data(channel, bytes).await,
                None => return,
            },
            _ = ended.wait_for(|ended| *ended) => break,
        }
    }
    // The process has ended. What it wrote is in the pipe, however long the host takes to read it.
    let end = Instant::now() + GRACE;
    let mut owed = rustix::io::ioctl_fionread(descriptor.get_ref()).unwrap_or(0);
    while owed > 0 || Instant::now() < end {
        match read_now(descriptor.get_ref()) {
            Read::Bytes(bytes) => {
                owed = owed.saturating_sub(bytes.len() as u64);
                stream.data(channel, bytes).await;
            }
            Read::End => return,
            Read::Empty => {
                owed = 0;
                match timeout_at(end, read(&descriptor)).await {
                    Ok(Some(bytes)) => stream.data(channel, bytes).await,
                    Ok(None) => return,
                    Err(_) => break,
                }
            }
        }
    }
    spawn_local(async move { while read(&descriptor).await.is_some() {} });
}

/// Carries input until its end, or until the process no longer takes any: the rest is dropped.
pub(crate) async fn feed(
    target: Input,
    mut input: mpsc::UnboundedReceiver<stream::Input>,
    stream: Rc<Stream>,
) {
    let (Input::Pipe(descriptor) | Input::Terminal(descriptor)) = &target;
    let mut wanted = true;
    let ended = loop {
        match input.recv().await {
            Some(stream::Input::Bytes(bytes)) => {
                wanted = wanted && write_all(descriptor, &bytes).await;
                stream.consumed(bytes.len());
            }
            Some(stream::Input::End) => break true,
            None => break false,
        }
    };
    // Typed only when the host says so: a connection that is lost types nothing.
    if ended
        && let Input::Terminal(master) = &target
        && let Some(byte) = terminal::end_of_input(master.get_ref())
    {
        write_all(master, &[byte]).await;
    }
}

async fn write_all(descriptor: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Ok(mut ready) = descriptor.writable().await else { return false };
        match ready.try_io(|descriptor| Ok(rustix::io::write(descriptor.get_ref(), bytes)?)) {
            Ok(Ok(size)) => bytes = &bytes[size..],
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(_)) => return false,
            Err(_would_block) => {}
        }
    }
    true
}

/// Waits for bytes; `None` at the end. Dropping the future loses nothing.
async fn read(descriptor: &AsyncFd<OwnedFd>) -> Option<Bytes> {
    loop {
        let mut ready = descriptor.readable().await.ok()?;
        match read_now(descriptor.get_ref()) {
            Read::Bytes(bytes) => return Some(bytes),
            Read::End => return None,
            Read::Empty => ready.clear_ready(),
        }
    }
}

fn read_now(descriptor: &OwnedFd) -> Read {
    let mut buffer = vec![0; MAX_DATA];
    loop {
        match rustix::io::read(descriptor, &mut buffer) {
            Ok(0) => return Read::End,
            Ok(size) => {
                buffer.truncate(size);
                // Small pieces must not hold a large buffer while they wait for a slow host.
                if size < MAX_DATA / 4 {
                    buffer.shrink_to_fit();
                }
                return Read::Bytes(buffer.into());
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Read::Empty,
            // A terminal whose last program has gone says EIO.
            Err(_) => return Read::End,
        }
    }
}
