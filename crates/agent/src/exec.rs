//! Running a program for the host, from request to exit status.
//!
//! **When output ends.** The end of a command is the end of its main process, not of everything it
//! left running. What is in the pipes at that moment always arrives. Then the agent waits for the
//! end of file of both pipes, but no longer than [`pump::GRACE`]: a background process that
//! inherited them does not hold the command up. Its later output is read and dropped, so it never
//! blocks or dies of a closed pipe.

mod failure;
mod launch;
mod program;
mod pump;
mod terminal;

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use kiln_protocol::{Channel, Control, ExecRequest, Failure, Reply, StartErrorKind};
use rustix::process::WaitStatus;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;

use crate::agent::Agent;
use crate::processes;
use crate::stream::{Inbound, Stream};
use failure::StartError;
use launch::{Descriptor, Output, Started};

/// The longest time-out that a timer can hold; more is none.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(10 * 365 * 24);

/// Runs a program. Gives the final reply.
pub(crate) async fn run(
    agent: &Rc<Agent>,
    stream: &Rc<Stream>,
    inbound: Inbound,
    request: ExecRequest,
) -> Reply {
    let timeout = request.timeout_ms.map(Duration::from_millis);
    let started = if agent.is_stopping() {
        Err(StartError::new(StartErrorKind::ShuttingDown, "the sandbox is shutting down"))
    } else {
        launch::start(agent, request).await
    };
    match started {
        Ok(started) => {
            stream.reply(Reply::Started { pid: started.pid as u32 });
            follow(agent, stream, inbound, started, timeout).await
        }
        Err(error) => {
            let failure = Failure::Start { kind: error.kind, message: error.message };
            Reply::Failed { failure }
        }
    }
}

/// Carries bytes, signals and time until the process has ended.
async fn follow(
    agent: &Agent,
    stream: &Rc<Stream>,
    inbound: Inbound,
    started: Started,
    timeout: Option<Duration>,
) -> Reply {
    let Started { pid, input: target, output, exit } = started;
    let Inbound { input, controls } = inbound;
    let (ended, end) = watch::channel(false);
    let terminal = match &output {
        Output::Terminal(master) => Some(Rc::clone(master)),
        Output::Pipes { .. } => None,
    };
    let is_terminal = terminal.is_some();
    if is_terminal {
        agent.terminals.borrow_mut().insert(pid);
    }
    let feeding = spawn_local(pump::feed(target, input, Rc::clone(stream)));
    let steering = async {
        let outcome = steer(pid, terminal, exit, controls, timeout).await;
        ended.send_replace(true);
        if is_terminal {
            agent.terminals.borrow_mut().remove(&pid);
        }
        outcome
    };
    let outcome = match output {
        Output::Pipes { stdout, stderr } => {
            let (outcome, (), ()) = tokio::join!(
                steering,
                pump::carry(stdout, stream, Channel::Output, end.clone()),
                pump::carry(stderr, stream, Channel::Error, end.clone()),
            );
            outcome
        }
        Output::Terminal(master) => {
            let carry = pump::carry(master, stream, Channel::Output, end.clone());
            tokio::join!(steering, carry).0
        }
    };
    feeding.abort();
    exited(outcome)
}

/// How the process ended, and whether its time was over.
type Outcome = (Option<WaitStatus>, bool);

/// Handles signals, sizes and the time-out until the process is reaped.
async fn steer(
    pid: i32,
    terminal: Option<Descriptor>,
    exit: oneshot::Receiver<WaitStatus>,
    mut controls: mpsc::UnboundedReceiver<Control>,
    timeout: Option<Duration>,
) -> Outcome {
    let mut exit = pin!(exit);
    let limited = timeout.filter(|timeout| *timeout < LONGEST_TIMEOUT);
    let mut timer = pin!(async {
        match limited {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    });
    let mut timed_out = false;
    let mut steerable = true;
    loop {
        tokio::select! {
            biased;
            status = &mut exit => return (status.ok(), timed_out),
            control = controls.recv(), if steerable => match control {
                Some(control) => apply(pid, terminal.as_ref(), control),
                None => steerable = false,
            },
            () = &mut timer, if !timed_out => {
                timed_out = true;
                processes::kill_tree(pid);
            }
        }
    }
}

/// The process has not been reaped here: `steer` sees its end first.
fn apply(pid: i32, terminal: Option<&Descriptor>, control: Control) {
    match control {
        Control::Resize(size) => {
            if let Some(master) = terminal {
                terminal::resize(master.get_ref(), size);
            }
        }
        Control::Signal { signal } => {
            // By number: the real-time signals have no name.
            crate::sys::signal_group(pid, signal);
        }
        Control::Kill {} => processes::kill_tree(pid),
        Control::Abort {} => {}
    }
}

fn exited((status, timed_out): Outcome) -> Reply {
    let Some(status) = status else {
        let message = "the status of the process was lost".to_owned();
        return Reply::Failed { failure: Failure::Refused { message } };
    };
    let signal = status.terminating_signal();
    let code = signal.map_or_else(|| status.exit_status().unwrap_or(-1), |signal| 128 + signal);
    Reply::Exited { code, signal, timed_out }
}
