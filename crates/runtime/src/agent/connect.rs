//! From a socket path to a connection that is agreed on.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use kiln_protocol::{Decoder, Frame, Hello, MAX_VERSION, MIN_VERSION, encode};
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::error::AgentError;
use super::link::{Link, chain, frame_name};
use super::stream::printable;

/// Bytes of a path that fit into a socket address, its final NUL aside.
const SUN_PATH: usize = 107;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// Why one attempt came to nothing.
pub(super) enum Failed {
    /// Another attempt may do better.
    Retry(io::Error),
    /// No attempt will.
    Final(String),
}

impl Failed {
    pub(super) fn into_error(self, socket: &Path) -> AgentError {
        let reason = match self {
            Self::Retry(error) => error.to_string(),
            Self::Final(reason) => reason,
        };
        AgentError::Handshake { socket: socket.to_owned(), reason }
    }
}

pub(super) async fn connect(socket: &Path, deadline: Duration) -> Result<Link, AgentError> {
    let end = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    loop {
        let last = match tokio::time::timeout_at(end, attempt(socket)).await {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(Failed::Retry(error))) => error,
            Ok(Err(failed @ Failed::Final(_))) => return Err(failed.into_error(socket)),
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, "it accepts but does not answer"),
        };
        if Instant::now() + pause >= end {
            return Err(AgentError::Connect {
                socket: socket.to_owned(),
                after: deadline,
                source: last,
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn attempt(socket: &Path) -> Result<Link, Failed> {
    let stream = dial(socket).await?;
    let (read, write) = stream.into_split();
    handshake(read, write).await
}

async fn dial(socket: &Path) -> Result<UnixStream, Failed> {
    if socket.as_os_str().len() <= SUN_PATH {
        return UnixStream::connect(socket).await.map_err(Failed::Retry);
    }
    let name = socket.file_name().ok_or_else(|| Failed::Final("it has no file name".to_owned()))?;
    let parent = socket.parent().unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        rustix::fs::open(parent, flags, Mode::empty()).map_err(|e| Failed::Retry(e.into()))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    if short.as_os_str().len() > SUN_PATH {
        let reason = format!("its name has {} bytes, more than a socket can have", name.len());
        return Err(Failed::Final(reason));
    }
    UnixStream::connect(short).await.map_err(Failed::Retry)
}

/// Says hello and waits for the welcome, for as long as the caller lets it.
pub(super) async fn handshake<R, W>(mut read: R, mut write: W) -> Result<Link, Failed>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let mut hello = BytesMut::new();
    encode(&Frame::Hello(Hello::default()), &mut hello)
        .map_err(|error| Failed::Final(error.to_string()))?;
    write.write_all(&hello).await.map_err(Failed::Retry)?;
    let mut decoder = Decoder::default();
    let frame = loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => break frame,
            Ok(None) => {}
            Err(error) => return Err(Failed::Final(chain(&error))),
        }
        if read.read_buf(decoder.buffer()).await.map_err(Failed::Retry)? == 0 {
            return Err(Failed::Retry(io::ErrorKind::UnexpectedEof.into()));
        }
    };
    match frame {
        Frame::Welcome(welcome) if (MIN_VERSION..=MAX_VERSION).contains(&welcome.version) => {
            Ok(Link::start(read, write, decoder))
        }
        Frame::Welcome(welcome) => {
            Err(Failed::Final(format!("it chose protocol version {}", welcome.version)))
        }
        Frame::Refuse(refuse) => Err(Failed::Final(printable(&refuse.message))),
        other => Err(Failed::Final(format!("it opened with {}", frame_name(&other)))),
    }
}
