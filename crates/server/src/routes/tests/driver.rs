//! A driver whose sandboxes are nothing but an agent that answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use kiln_protocol::{Decoder, Frame, MAX_VERSION, Reply, Welcome, encode};
use kiln_runtime::agent::Agent;
use kiln_runtime::{Exit, RootSource, Running, Runtime, RuntimeError, SandboxSpec, Slot};
use kiln_types::SandboxId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

const DEADLINE: Duration = Duration::from_secs(5);

/// The driver. Unless it is told to work, nothing ever starts on it.
#[derive(Debug)]
pub(super) struct Driver {
    works: AtomicBool,
    /// How many sandboxes it was asked to start.
    creates: AtomicUsize,
    /// Each start needs one.
    permits: Semaphore,
    sandboxes: Mutex<HashMap<SandboxId, Sandbox>>,
}

#[derive(Debug)]
struct Sandbox {
    exit: watch::Sender<Option<Exit>>,
    /// The agent's end of the link.
    link: JoinHandle<()>,
}

impl Driver {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            works: AtomicBool::new(false),
            creates: AtomicUsize::new(0),
            permits: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            sandboxes: Mutex::default(),
        })
    }

    /// From now on starts succeed, or fail.
    pub(super) fn work(&self, works: bool) {
        self.works.store(works, Ordering::SeqCst);
    }

    /// From now on starts wait for [`Self::resume`].
    pub(super) fn pause(&self) {
        self.permits.forget_permits(usize::MAX);
    }

    pub(super) fn resume(&self) {
        self.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    pub(super) fn creates(&self) -> usize {
        self.creates.load(Ordering::SeqCst)
    }

    /// How many sandboxes run.
    pub(super) fn running(&self) -> usize {
        self.sandboxes.lock().unwrap().len()
    }

    /// Breaks all links to agents. The sandboxes run on.
    pub(super) async fn lose_links(&self) {
        for sandbox in self.sandboxes.lock().unwrap().values() {
            sandbox.link.abort();
        }
        while !self.sandboxes.lock().unwrap().values().all(|sandbox| sandbox.link.is_finished()) {
            tokio::task::yield_now().await;
        }
    }

    async fn link(&self) -> (Agent, JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let link = tokio::spawn(answer(theirs));
        (Agent::over(ours, DEADLINE).await.unwrap(), link)
    }

    fn running_on(agent: Agent, exit: &watch::Sender<Option<Exit>>) -> Running {
        Running { agent, slot: Slot(0), address: None, pid: 1, exit: exit.subscribe() }
    }
}

#[async_trait::async_trait]
impl Runtime for Driver {
    fn name(&self) -> &'static str {
        "test"
    }

    async fn create(
        &self,
        spec: SandboxSpec,
        _root: Box<dyn RootSource>,
    ) -> Result<Running, RuntimeError> {
        self.creates.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        if !self.works.load(Ordering::SeqCst) {
            let source = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
            return Err(RuntimeError::Start {
                id: spec.id,
                step: "start anything".to_owned(),
                source,
            });
        }
        let (agent, link) = self.link().await;
        let exit = watch::Sender::new(None);
        let running = Self::running_on(agent, &exit);
        self.sandboxes.lock().unwrap().insert(spec.id, Sandbox { exit, link });
        Ok(running)
    }

    async fn adopt(&self, spec: SandboxSpec) -> Result<Option<Running>, RuntimeError> {
        if !self.sandboxes.lock().unwrap().contains_key(&spec.id) {
            return Ok(None);
        }
        let (agent, link) = self.link().await;
        let mut sandboxes = self.sandboxes.lock().unwrap();
        let sandbox = sandboxes.get_mut(&spec.id).unwrap();
        sandbox.link = link;
        Ok(Some(Self::running_on(agent, &sandbox.exit)))
    }

    async fn stop(&self, id: SandboxId, _grace: Duration) -> Result<(), RuntimeError> {
        if let Some(sandbox) = self.sandboxes.lock().unwrap().remove(&id) {
            sandbox.link.abort();
            sandbox.exit.send_replace(Some(Exit { out_of_memory: false, reason: "stop".into() }));
        }
        Ok(())
    }

    async fn freeze(&self, _id: SandboxId) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn thaw(&self, _id: SandboxId) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn sweep(&self, _alive: &[SandboxId]) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// An agent that has done whatever it is asked for.
async fn answer(mut stream: DuplexStream) {
    let mut decoder = Decoder::default();
    loop {
        let reply = match decoder.next_frame().unwrap() {
            None if stream.read_buf(decoder.buffer()).await.unwrap() == 0 => return,
            None => continue,
            Some(Frame::Hello(_)) => {
                Frame::Welcome(Welcome { version: MAX_VERSION, agent: "test".to_owned() })
            }
            Some(Frame::Ping(value)) => Frame::Pong(value),
            Some(Frame::Request { stream, .. }) => Frame::Reply { stream, reply: Reply::Done {} },
            Some(_) => continue,
        };
        let mut bytes = BytesMut::new();
        encode(&reply, &mut bytes).unwrap();
        stream.write_all(&bytes).await.unwrap();
    }
}
