//! A command that runs while its input and output flow, over a WebSocket.

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use kiln_types::api::{
    EXEC_CHANNEL_STDERR, EXEC_CHANNEL_STDIN, EXEC_CHANNEL_STDOUT, ExecClientMessage, ExecRequest,
    ExecServerMessage, PtySize,
};
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::sandboxes::path;
use crate::{Client, ClientError, Endpoint};

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type Socket = WebSocketStream<Box<dyn Stream>>;

/// A running command.
pub struct ExecSession {
    /// Where input and control go.
    pub input: ExecInput,
    /// Where output and the end come from.
    pub output: ExecReader,
}

/// The writing half.
pub struct ExecInput(SplitSink<Socket, Message>);

/// The reading half.
pub struct ExecReader(SplitStream<Socket>);

/// What a running command sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// Standard output, or the terminal.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// The end.
    Exit {
        /// The exit code; 128 + n when signal n ended the process.
        code: i32,
        /// Whether the time-out ended it.
        timed_out: bool,
    },
}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecSession").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ExecInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecInput").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ExecReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecReader").finish_non_exhaustive()
    }
}

impl Client {
    /// Starts a command whose input and output are streamed.
    pub async fn exec_stream(
        &self,
        sandbox: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, ClientError> {
        let route = path(sandbox, "/exec/stream")?;
        let stream = self.connect().await?;
        let (url, key) = match self.endpoint() {
            Endpoint::Unix(_) => (format!("ws://kiln{route}"), None),
            Endpoint::Http { url, key } => {
                (format!("{}{route}", url.replacen("http", "ws", 1)), key.as_deref())
            }
        };
        let mut upgrade = url.into_client_request().map_err(|error| protocol(&error))?;
        if let Some(key) = key {
            let value = format!("Bearer {key}").parse().map_err(|_| ClientError::Endpoint {
                endpoint: self.endpoint().to_string(),
                reason: "the API key has characters that a header cannot hold".to_owned(),
            })?;
            upgrade.headers_mut().insert("authorization", value);
        }
        let (socket, _) = client_async(upgrade, stream).await.map_err(refused)?;
        let (sink, source) = socket.split();
        let mut input = ExecInput(sink);
        input.control(&ExecClientMessage::Start { request }).await?;
        Ok(ExecSession { input, output: ExecReader(source) })
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let failed = |source: std::io::Error| ClientError::Connect {
            endpoint: self.endpoint().to_string(),
            source: source.into(),
        };
        match self.endpoint() {
            Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
            Endpoint::Http { url, .. } => {
                let authority = plain_authority(url)?;
                let stream = TcpStream::connect(authority).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// `host:port` of an `http://` URL; the port may be left out of the URL.
fn plain_authority(url: &str) -> Result<String, ClientError> {
    let parsed = url.parse::<Url>().ok().filter(|url| url.scheme() == "http");
    let parts = parsed.as_ref().and_then(|url| url.host_str().zip(url.port_or_known_default()));
    parts.map(|(host, port)| format!("{host}:{port}")).ok_or_else(|| ClientError::Endpoint {
        endpoint: url.to_owned(),
        reason: "streamed commands need an `http://` endpoint or the Unix socket".to_owned(),
    })
}

impl ExecInput {
    /// Sends bytes to standard input. Waits while the command does not read, which it may do for as long
    /// as nobody reads its output: drive [`ExecReader::next`] at the same time.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(EXEC_CHANNEL_STDIN);
        message.extend_from_slice(bytes);
        self.0.send(Message::Binary(message.into())).await.map_err(broken)
    }

    /// Ends standard input.
    pub async fn close(&mut self) -> Result<(), ClientError> {
        self.control(&ExecClientMessage::StdinEof).await
    }

    /// Tells the new size of the terminal.
    pub async fn resize(&mut self, size: PtySize) -> Result<(), ClientError> {
        self.control(&ExecClientMessage::Resize { size }).await
    }

    /// Sends a signal to the command's process group.
    pub async fn signal(&mut self, signal: i32) -> Result<(), ClientError> {
        self.control(&ExecClientMessage::Signal { signal }).await
    }

    async fn control(&mut self, message: &ExecClientMessage) -> Result<(), ClientError> {
        let text = serde_json::to_string(message).expect("the message has a JSON form");
        self.0.send(Message::text(text)).await.map_err(broken)
    }
}

impl ExecReader {
    /// The next piece of output, or the end.
    pub async fn next(&mut self) -> Result<ExecOutput, ClientError> {
        loop {
            let Some(message) = self.0.next().await else {
                return Err(ClientError::Broken {
                    action: "ran a command",
                    source: "the connection was closed before the command's end".into(),
                });
            };
            match message.map_err(broken)? {
                Message::Binary(bytes) => match bytes.first() {
                    Some(&EXEC_CHANNEL_STDOUT) => return Ok(ExecOutput::Stdout(bytes.slice(1..))),
                    Some(&EXEC_CHANNEL_STDERR) => return Ok(ExecOutput::Stderr(bytes.slice(1..))),
                    other => {
                        let reason = format!("channel {other:?} is not known");
                        return Err(ClientError::Protocol { action: "a command", reason });
                    }
                },
                Message::Text(text) => {
                    let message = serde_json::from_str(&text).map_err(|error| {
                        ClientError::Protocol { action: "a command", reason: error.to_string() }
                    })?;
                    return match message {
                        ExecServerMessage::Exit { exit_code, timed_out, .. } => {
                            Ok(ExecOutput::Exit { code: exit_code, timed_out })
                        }
                        ExecServerMessage::Error { problem } => Err(ClientError::Problem(problem)),
                    };
                }
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
            }
        }
    }
}

fn broken(source: tungstenite::Error) -> ClientError {
    ClientError::Broken { action: "ran a command", source: source.into() }
}

fn protocol(error: &tungstenite::Error) -> ClientError {
    ClientError::Protocol { action: "a command", reason: error.to_string() }
}

/// A refused upgrade carries the problem in its body.
fn refused(error: tungstenite::Error) -> ClientError {
    if let tungstenite::Error::Http(response) = &error
        && let Some(problem) =
            response.body().as_ref().and_then(|body| serde_json::from_slice(body).ok())
    {
        return ClientError::Problem(problem);
    }
    protocol(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_have_a_port() {
        for (url, authority) in [
            ("http://127.0.0.1:7070", Some("127.0.0.1:7070")),
            ("http://localhost", Some("localhost:80")),
            ("http://[::1]:7070/behind/a/proxy", Some("[::1]:7070")),
            ("https://127.0.0.1", None),
            ("nonsense", None),
        ] {
            assert_eq!(plain_authority(url).ok().as_deref(), authority, "{url}");
        }
    }
}
