//! Server-sent events, read one at a time.

use reqwest::Response;
use serde_json::Value;

/// A stream of events.
pub(crate) struct Events {
    response: Response,
    unread: Vec<u8>,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

impl Events {
    pub(crate) fn new(response: Response) -> Self {
        Self { response, unread: Vec::new() }
    }

    /// The next event; `None` at the end, which must be in order.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.unread.drain(..end + 2).collect();
                let block = String::from_utf8(block).unwrap();
                if let Some(event) = parse(&block) {
                    return Some(event);
                }
                continue;
            }
            match self.response.chunk().await.expect("the stream ends in order") {
                Some(chunk) => self.unread.extend_from_slice(&chunk),
                None => {
                    assert!(self.unread.is_empty(), "the stream broke off within an event");
                    return None;
                }
            }
        }
    }

    /// All that is left.
    pub(crate) async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// `None` for a comment.
fn parse(block: &str) -> Option<Event> {
    let field =
        |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
    let data = field("data:")?;
    let data = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {block}"));
    Some(Event { id: field("id:").map(str::to_owned), data })
}
