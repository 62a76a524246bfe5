//! The agent as a whole: what all connections share, and its main loop.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::connection;
use crate::listen::Source;
use crate::reaper::Reaper;
use crate::shutdown;
use crate::sys::{self, DescriptorLimit};

/// Grace of a shutdown that SIGTERM asks for.
const SIGNAL_GRACE: Duration = Duration::from_secs(10);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) reaper: Reaper,
    /// The descriptor limit that processes get; the agent's own is raised.
    pub(crate) limit: DescriptorLimit,
    /// Process groups on a terminal.
    pub(crate) terminals: RefCell<HashSet<i32>>,
    stopping: Cell<bool>,
    open_streams: Cell<usize>,
    idle: Notify,
}

impl Agent {
    /// Whether nothing may be started any more.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Marks the start of the shutdown; `false` when it has been marked before.
    pub(crate) fn begin_stopping(&self) -> bool {
        !self.stopping.replace(true)
    }

    pub(crate) fn stream_opened(&self) {
        self.open_streams.set(self.open_streams.get() + 1);
    }

    pub(crate) fn stream_closed(&self) {
        self.open_streams.set(self.open_streams.get() - 1);
        if self.open_streams.get() == 0 {
            self.idle.notify_one();
        }
    }
}

/// Serves until the shutdown, which ends the process.
pub(crate) async fn run(source: Source) -> Result<(), String> {
    let listener = source.open()?;
    sys::adopt_orphans().map_err(|error| format!("could not become a reaper: {error}"))?;
    let failed = |error| format!("could not handle signals: {error}");
    let child = signal(SignalKind::child()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let agent = Rc::new(Agent {
        reaper: Reaper::default(),
        limit: sys::raise_descriptor_limit(),
        terminals: RefCell::default(),
        stopping: Cell::new(false),
        open_streams: Cell::new(0),
        idle: Notify::new(),
    });
    // The first file thread: with it, file operations work whatever the guest does later.
    let _thread = tokio::task::spawn_blocking(|| ()).await;
    let reaping = Rc::clone(&agent);
    spawn_local(async move { reaping.reaper.run(child).await });
    let trimming = Rc::clone(&agent);
    spawn_local(async move { trim_when_idle(&trimming).await });
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let agent = Rc::clone(&agent);
                    spawn_local(async move { connection::serve(agent, socket).await });
                }
                // Out of descriptors or memory: others' connections go on, this one waits.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            _ = terminate.recv() => {
                let agent = Rc::clone(&agent);
                spawn_local(async move {
                    if shutdown::run(&agent, SIGNAL_GRACE).await {
                        shutdown::exit();
                    }
                });
            }
        }
    }
}

/// Gives memory back a moment after the last stream has ended.
async fn trim_when_idle(agent: &Agent) {
    loop {
        agent.idle.notified().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if agent.open_streams.get() == 0 {
            sys::trim_memory();
        }
    }
}
