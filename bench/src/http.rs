//! A blocking HTTP/1.1 client: one connection, one request at a time, nothing between the clock and the
//! socket that is not needed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// No request of a benchmark takes as long.
const DEADLINE: Duration = Duration::from_mins(5);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    /// The header lines of every request.
    headers: String,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Response {
    /// The body as JSON; fails unless the status is 2xx.
    pub(crate) fn json(&self) -> Result<Value> {
        self.success()?;
        serde_json::from_slice(&self.body).context("the answer is not JSON")
    }

    /// Fails unless the status is 2xx, or 304 (which one peer answers when there is nothing to do).
    pub(crate) fn success(&self) -> Result<()> {
        let fine = matches!(self.status, 200..300 | 304);
        ensure!(fine, "status {}: {}", self.status, String::from_utf8_lossy(&self.body));
        Ok(())
    }
}

impl Connection {
    /// Connects by TCP; `key` goes with every request.
    pub(crate) fn tcp(address: SocketAddr, key: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .with_context(|| format!("could not connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let headers = format!("host: {address}\r\nauthorization: Bearer {key}\r\n");
        Ok(Self { stream: Box::new(stream), headers, buffer: Vec::new() })
    }

    /// Connects by a Unix socket.
    pub(crate) fn unix(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("could not connect to {}", path.display()))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self { stream: Box::new(stream), headers: "host: d\r\n".to_owned(), buffer: Vec::new() })
    }

    /// Sends a request and reads the answer to its end.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.headers,
            body.len(),
        );
        self.stream.write_all(request.as_bytes()).context("could not send the request")?;
        self.answer().with_context(|| format!("{method} {path}"))
    }

    fn answer(&mut self) -> Result<Response> {
        let (status, length, head) = loop {
            if let Some(head) = parse_head(&self.buffer)? {
                break head;
            }
            ensure!(self.fill()? > 0, "the connection was closed before the answer");
        };
        self.buffer.drain(..head);
        let body = match length {
            _ if status == 204 || status == 304 => Vec::new(),
            Length::Known(length) => {
                while self.buffer.len() < length {
                    ensure!(self.fill()? > 0, "the connection was closed within the answer");
                }
                self.buffer.drain(..length).collect()
            }
            Length::Chunked => self.chunks()?,
            Length::UntilClosed => {
                while self.fill()? > 0 {}
                std::mem::take(&mut self.buffer)
            }
        };
        Ok(Response { status, body })
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match httparse::parse_chunk_size(&self.buffer) {
                Ok(httparse::Status::Complete((start, size))) => {
                    let size = size as usize;
                    while self.buffer.len() < start + size + 2 {
                        ensure!(self.fill()? > 0, "the connection was closed within a chunk");
                    }
                    body.extend_from_slice(&self.buffer[start..start + size]);
                    self.buffer.drain(..start + size + 2);
                    if size == 0 {
                        return Ok(body);
                    }
                }
                Ok(httparse::Status::Partial) => {
                    ensure!(self.fill()? > 0, "the connection was closed between chunks");
                }
                Err(_) => bail!("a chunk has no size"),
            }
        }
    }

    fn fill(&mut self) -> Result<usize> {
        let mut piece = [0; 16 * 1024];
        let count = self.stream.read(&mut piece).context("could not read the answer")?;
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count)
    }
}

enum Length {
    Known(usize),
    Chunked,
    UntilClosed,
}

/// Status, how the body ends, and the size of the head; `None` while the head is not complete.
fn parse_head(bytes: &[u8]) -> Result<Option<(u16, Length, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(size) =
        response.parse(bytes).context("the answer is not HTTP")?
    else {
        return Ok(None);
    };
    let mut length = Length::UntilClosed;
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default();
        if header.name.eq_ignore_ascii_case("content-length") {
            length = Length::Known(value.parse().context("the length of the answer")?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") && value == "chunked" {
            length = Length::Chunked;
        }
    }
    let status = response.code.context("the answer has no status")?;
    Ok(Some((status, length, size)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn bodies_of_all_kinds() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers = [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nraw",
        ];
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut connection = Connection::tcp(address, "k").unwrap();
        let mut get = || connection.request("GET", "/", None).unwrap();
        assert_eq!(get().json().unwrap(), serde_json::json!({}));
        assert_eq!(get().status, 204);
        assert_eq!(get().json().unwrap(), serde_json::json!({"a": 1}));
        assert_eq!(get().body, b"raw");
        server.join().unwrap();
    }
}
