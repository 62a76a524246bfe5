//! Server-sent events, as far as this API uses them: `data:` lines with one JSON value an event.

use std::collections::VecDeque;

use futures_util::{Stream, StreamExt, stream};
use reqwest::Response;
use serde::de::DeserializeOwned;

use crate::ClientError;

/// Splits a byte stream into the data of events.
#[derive(Debug, Default)]
struct Splitter {
    line: Vec<u8>,
    data: String,
    ready: VecDeque<String>,
}

impl Splitter {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim_end_matches('\r').to_owned();
            self.line.clear();
            if line.is_empty() {
                if !self.data.is_empty() {
                    self.ready.push_back(std::mem::take(&mut self.data));
                }
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
    }
}

/// The events of `response`, each parsed from its data.
pub(crate) fn events<T: DeserializeOwned>(
    response: Response,
    action: &'static str,
) -> impl Stream<Item = Result<T, ClientError>> + Unpin {
    let body = response.bytes_stream().boxed();
    stream::unfold((body, Splitter::default(), false), move |(mut body, mut splitter, done)| {
        Box::pin(async move {
            if done {
                return None;
            }
            loop {
                if let Some(data) = splitter.ready.pop_front() {
                    let event = serde_json::from_str(&data).map_err(|error| {
                        ClientError::Protocol { action, reason: error.to_string() }
                    });
                    let failed = event.is_err();
                    return Some((event, (body, splitter, failed)));
                }
                match body.next().await? {
                    Ok(bytes) => splitter.push(&bytes),
                    Err(source) => {
                        let error = ClientError::Broken {
                            action: "streamed events",
                            source: source.into(),
                        };
                        return Some((Err(error), (body, splitter, true)));
                    }
                }
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_gives_the_same_events() {
        let text = b": hello\nid: 1\ndata: {\"a\":1}\n\r\nevent: x\ndata: one\ndata: two\n\n\n\ndata: tail";
        for at in 0..text.len() {
            let mut splitter = Splitter::default();
            splitter.push(&text[..at]);
            splitter.push(&text[at..]);
            assert_eq!(splitter.ready, ["{\"a\":1}", "one\ntwo"], "split at {at}");
        }
    }
}
