//! The digest of a blob, computed beside the writing of it.
//!
//! Hashing takes about as long as all the rest of storing a large blob, so a large one is hashed on a
//! thread of its own. A small one is hashed where it is written: a thread would cost more than it saves.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use kiln_types::Digest;
use sha2::{Digest as _, Sha256};

/// From so many bytes on a blob has a thread.
const LARGE: u64 = 1 << 20;
/// Bytes that the thread is given at once.
const PIECE: usize = 256 << 10;
/// Pieces that may wait for the thread. It is a bound on memory: 2 MiB.
const WAITING: usize = 8;

/// The hash of all that was written so far.
pub(super) struct Hash {
    state: State,
    length: u64,
    /// What comes after that which the thread was given.
    gathered: Vec<u8>,
}

enum State {
    Here(Sha256),
    Beside(Worker),
}

struct Worker {
    work: SyncSender<Work>,
    /// Pieces that were hashed, to be filled again.
    done: Receiver<Vec<u8>>,
    thread: JoinHandle<Sha256>,
}

enum Work {
    Piece(Vec<u8>),
    Tell(SyncSender<Sha256>),
}

impl Hash {
    pub(super) fn new() -> Self {
        Self { state: State::Here(Sha256::new()), length: 0, gathered: Vec::new() }
    }

    /// Takes `bytes` in.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        match &mut self.state {
            State::Here(hash) => {
                hash.update(bytes);
                if self.length >= LARGE
                    && let Some(worker) = Worker::start(hash.clone())
                {
                    self.state = State::Beside(worker);
                }
            }
            State::Beside(worker) => {
                while !bytes.is_empty() {
                    let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.gathered.len()));
                    self.gathered.extend_from_slice(now);
                    bytes = later;
                    if self.gathered.len() == PIECE {
                        let mut next = worker.done.try_recv().unwrap_or_default();
                        next.clear();
                        worker.give(Work::Piece(std::mem::replace(&mut self.gathered, next)));
                    }
                }
            }
        }
    }

    /// The digest of all so far.
    pub(super) fn digest(&self) -> Digest {
        let hash = match &self.state {
            State::Here(hash) => hash.clone(),
            State::Beside(worker) => {
                let (tell, told) = sync_channel(1);
                worker.give(Work::Tell(tell));
                told.recv().expect("the thread answers before it ends").chain_update(&self.gathered)
            }
        };
        Digest::from_sha256(hash.finalize().into())
    }

    /// The digest of all.
    pub(super) fn finish(self) -> Digest {
        let hash = match self.state {
            State::Here(hash) => hash,
            State::Beside(Worker { work, thread, .. }) => {
                drop(work);
                let hash = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                hash.chain_update(&self.gathered)
            }
        };
        Digest::from_sha256(hash.finalize().into())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hash").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Worker {
    /// `None` where no thread is to be had: then it goes on without.
    fn start(hash: Sha256) -> Option<Self> {
        let (work, incoming) = sync_channel(WAITING);
        // As many as can be on their way: to give one back never waits.
        let (give_back, done) = sync_channel(WAITING + 2);
        let thread = std::thread::Builder::new()
            .name("kiln-hash".to_owned())
            .spawn(move || hash_all(hash, &incoming, &give_back))
            .ok()?;
        Some(Self { work, done, thread })
    }

    fn give(&self, work: Work) {
        // The thread ends when this end of the channel is dropped, not before.
        self.work.send(work).expect("the thread takes work as long as there may be some");
    }
}

fn hash_all(
    mut hash: Sha256,
    incoming: &Receiver<Work>,
    give_back: &SyncSender<Vec<u8>>,
) -> Sha256 {
    for work in incoming {
        match work {
            Work::Piece(piece) => {
                hash.update(&piece);
                let _not_needed = give_back.try_send(piece);
            }
            Work::Tell(tell) => {
                let _nobody_waits = tell.send(hash.clone());
            }
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_however_it_comes() {
        let bytes: Vec<u8> = (0..3 * LARGE + 12_345).map(|at| (at * 31 % 251) as u8).collect();
        let whole = Digest::of(&bytes);
        for piece in [1000, 4096, PIECE - 1, PIECE, PIECE + 1, 1 << 20, bytes.len()] {
            let mut hash = Hash::new();
            let mut done = 0;
            for part in bytes.chunks(piece) {
                hash.update(part);
                done += part.len();
                if done > bytes.len() / 2 && done < bytes.len() / 2 + 2 * piece {
                    assert_eq!(hash.digest(), Digest::of(&bytes[..done]), "{piece}");
                }
            }
            assert_eq!(hash.digest(), whole, "{piece}");
            assert_eq!(hash.finish(), whole, "{piece}");
        }
        assert_eq!(Hash::new().finish(), Digest::of(b""));
    }

    #[test]
    fn one_that_is_given_up_ends_its_thread() {
        let mut hash = Hash::new();
        hash.update(&vec![7; 4 << 20]);
        assert!(matches!(hash.state, State::Beside(_)));
        let State::Beside(Worker { work, thread, .. }) = hash.state else { return };
        drop(work);
        thread.join().expect("it ends by itself");
    }
}
