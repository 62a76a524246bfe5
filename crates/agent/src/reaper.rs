//! Reaping: the statuses of what the agent started, and the orphans of everybody else.
//!
//! There is one caller of `wait` in the agent, this one, so no status is ever taken by another.

use std::cell::RefCell;
use std::collections::HashMap;

use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus};
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, oneshot};

#[derive(Debug, Default)]
pub(crate) struct Reaper {
    waiting: RefCell<HashMap<i32, oneshot::Sender<WaitStatus>>>,
    reaped: Notify,
}

impl Reaper {
    /// Registers a child; to be called before the event loop runs again.
    pub(crate) fn watch(&self, pid: i32) -> oneshot::Receiver<WaitStatus> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid, sender);
        receiver
    }

    pub(crate) async fn run(&self, mut child: Signal) {
        loop {
            self.reap();
            self.reaped.notify_waiters();
            if child.recv().await.is_none() {
                return;
            }
        }
    }

    /// Reaps all that is dead; says whether there are no children left.
    fn reap(&self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let waiting = self.waiting.borrow_mut().remove(&pid.as_raw_nonzero().get());
                    if let Some(sender) = waiting {
                        let _nobody_may_wait_any_more = sender.send(status);
                    }
                }
                Ok(None) => return false,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// Waits until there are no children: as PID 1, until nothing else runs.
    pub(crate) async fn childless(&self) {
        loop {
            let reaped = self.reaped.notified();
            tokio::pin!(reaped);
            // From here on no notification is missed.
            reaped.as_mut().enable();
            if self.reap() {
                return;
            }
            reaped.await;
        }
    }
}
