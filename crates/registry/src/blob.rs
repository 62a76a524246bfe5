//! A layer's blob as a stream: verified while it passes, continued where it broke off.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_images::oci::Descriptor;
use kiln_types::Digest;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::Sender;

use crate::client::{Inner, Report};
use crate::endpoint::Endpoint;
use crate::error::{Asked, RegistryError};
use crate::feed::Piece;
use crate::progress::PullProgress;
use crate::request::{Ask, transport};
use crate::retry::Attempts;

/// Bytes after which a transfer counts as going well again.
const PROGRESS: u64 = 1 << 20;
/// Bytes between two reports.
const REPORT: u64 = 4 << 20;

/// Bytes that have to come in the time for which a server may be silent.
const LEAST: u64 = 256 << 10;

/// How a transfer ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// Everything was sent, and is what was asked for.
    Whole,
    /// The other side stopped taking it.
    Refused,
}

/// A transfer under way.
struct Transfer<'a> {
    blob: &'a Descriptor,
    sender: &'a Sender<Piece>,
    report: Report<'a>,
    hash: Sha256,
    done: u64,
    reported: u64,
}

impl Inner {
    /// Sends a blob's bytes from the first of `endpoints` that has them, going to the next when one
    /// fails, and an end only if size and digest are right.
    pub(crate) async fn feed_blob(
        &self,
        endpoints: &[&Endpoint],
        blob: &Descriptor,
        sender: &Sender<Piece>,
        report: Report<'_>,
    ) -> Result<Fed, RegistryError> {
        let mut transfer =
            Transfer { blob, sender, report, hash: Sha256::new(), done: 0, reported: 0 };
        let mut failed = None;
        for endpoint in endpoints {
            match self.feed_from(endpoint, &mut transfer).await {
                Ok(Fed::Refused) => return Ok(Fed::Refused),
                Ok(Fed::Whole) => return transfer.finish(endpoint).await,
                Err(error) => {
                    if !endpoint.last {
                        report(PullProgress::SourceFailed {
                            source: endpoint.key.clone(),
                            reason: error.one_line(),
                        });
                    }
                    failed = Some(error);
                }
            }
        }
        Err(failed.expect("there is at least one endpoint"))
    }

    /// Takes bytes from one endpoint until the transfer is complete.
    async fn feed_from(
        &self,
        endpoint: &Endpoint,
        transfer: &mut Transfer<'_>,
    ) -> Result<Fed, RegistryError> {
        let blob = transfer.blob;
        let what = format!("layer {}", blob.digest);
        let asked = endpoint.asked(what.as_str());
        let mut ask = Ask::get(format!("blobs/{}", blob.digest), "*/*", what);
        let mut attempts = Attempts::new(&self.config, endpoint.last);
        let mut ranges = true;
        let mut counted = transfer.done;
        loop {
            ask.from = if ranges { transfer.done } else { 0 };
            let response = match self.request(endpoint, &ask, &mut attempts, transfer.report).await
            {
                Err(RegistryError::Status { status: 416, .. }) if ask.from > 0 => {
                    ranges = false;
                    continue;
                }
                response => response?,
            };
            let skip = transfer.done - start(&response, ask.from, &asked)?;
            let error =
                match transfer.take(response, skip, &asked, self.config.read_timeout()).await? {
                    Taken::Refused => return Ok(Fed::Refused),
                    Taken::Ended if transfer.done == blob.size => return Ok(Fed::Whole),
                    Taken::Ended => RegistryError::CutOff {
                        asked: asked.clone(),
                        found: transfer.done,
                        expected: blob.size,
                    },
                    Taken::Broke(error) => error,
                };
            if transfer.done - counted >= PROGRESS {
                counted = transfer.done;
                attempts.reset();
            }
            self.pause(error, None::<Duration>, &mut attempts, transfer.report).await?;
        }
    }
}

/// How the body of one answer ended.
enum Taken {
    Ended,
    Broke(RegistryError),
    Refused,
}

impl Transfer<'_> {
    /// Passes on the body of one answer, without its first `skip` bytes, which came before. In each
    /// `window` of waiting for the server, some part has to come.
    async fn take(
        &mut self,
        mut response: Response,
        mut skip: u64,
        asked: &Asked,
        window: Duration,
    ) -> Result<Taken, RegistryError> {
        let expected = self.blob.size;
        // Only the wait for the server counts, not that for the disk.
        let (mut waited, mut came) = (Duration::ZERO, 0);
        loop {
            let begun = Instant::now();
            let mut chunk: Bytes = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(Taken::Ended),
                Err(error) => return Ok(Taken::Broke(transport(Box::new(asked.clone()), error))),
            };
            waited += begun.elapsed();
            came += chunk.len() as u64;
            if waited >= window {
                if came < LEAST {
                    let (asked, seconds) = (Box::new(asked.clone()), waited.as_secs());
                    return Ok(Taken::Broke(RegistryError::TooSlow {
                        asked,
                        found: came,
                        seconds,
                    }));
                }
                (waited, came) = (Duration::ZERO, 0);
            }
            let known = skip.min(chunk.len() as u64);
            skip -= known;
            drop(chunk.split_to(known as usize));
            self.done += chunk.len() as u64;
            if self.done > expected {
                let asked = Box::new(asked.clone());
                return Err(RegistryError::TooLarge { asked, limit: expected });
            }
            self.hash.update(&chunk);
            if !chunk.is_empty() && self.sender.send(Piece::Data(chunk)).await.is_err() {
                return Ok(Taken::Refused);
            }
            if self.done - self.reported >= REPORT || self.done == expected {
                self.reported = self.done;
                (self.report)(PullProgress::LayerProgress {
                    layer: self.blob.digest,
                    done: self.done,
                    total: expected,
                });
            }
        }
    }

    /// Sends the end if what came is what was asked for.
    async fn finish(self, endpoint: &Endpoint) -> Result<Fed, RegistryError> {
        let found = Digest::from_sha256(self.hash.finalize().into());
        let expected = self.blob.digest;
        if found != expected {
            let asked = endpoint.asked(format!("layer {expected}"));
            return Err(RegistryError::WrongDigest { asked, expected, found });
        }
        match self.sender.send(Piece::End).await {
            Ok(()) => Ok(Fed::Whole),
            Err(_) => Ok(Fed::Refused),
        }
    }
}

/// The position in the blob at which an answer's body begins.
fn start(response: &Response, asked_from: u64, asked: &Asked) -> Result<u64, RegistryError> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(0);
    }
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range
        .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    match start {
        Some(start) if start <= asked_from => Ok(start),
        _ => Err(RegistryError::Status {
            asked: Box::new(asked.clone()),
            status: 206,
            detail: ": the part of the content is not the one that was asked for".into(),
        }),
    }
}
