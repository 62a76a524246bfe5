//! `run`, `exec`, `shell`.

use std::convert::Infallible;
use std::io::IsTerminal as _;

use anyhow::{Result, bail};
use kiln_client::{Client, ExecInput, ExecOutput, ExecReader, ExecSession};
use kiln_types::api::{CreateSandbox, ExecRequest};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{Exec, Process, Run, Shell};
use crate::output;
use crate::terminal::{self, RawMode};

pub(super) async fn run(client: &Client, args: Run, json: bool) -> Result<u8> {
    // From here on a signal is passed on to the command, so that it cannot leave the sandbox behind.
    let control = Control::new()?;
    let sandbox = client
        .create_sandbox(&CreateSandbox {
            image: args.image.clone(),
            limits: super::sandboxes::limits(&args.resources),
            driver: args.driver.driver,
            ..CreateSandbox::default()
        })
        .await?;
    let id = sandbox.id.to_string();
    let result = async {
        let mut argv = args.argv;
        if argv.is_empty() {
            let config = client.image(&sandbox.image_digest.to_string()).await?.config;
            argv = config.entrypoint.into_iter().chain(config.cmd).collect();
            if argv.is_empty() {
                bail!("the image names no command; give one: kiln run {} -- COMMAND", args.image);
            }
        }
        execute(client, &id, args.process, argv, control, json).await
    }
    .await;
    // The command's end is what the user waits for, but its sandbox must not outlive it.
    let removed = client.remove_sandbox(&id, true).await;
    let code = result?;
    removed?;
    Ok(code)
}

pub(super) async fn exec(client: &Client, args: Exec, json: bool) -> Result<u8> {
    execute(client, &args.sandbox, args.process, args.argv, Control::new()?, json).await
}

/// Prefers bash and takes sh. Commands from a file or a pipe need no terminal, whose shell would not see
/// where they end.
pub(super) async fn shell(client: &Client, args: Shell) -> Result<u8> {
    let process = Process {
        env: Vec::new(),
        workdir: None,
        user: args.user,
        timeout: None,
        interactive: true,
        tty: std::io::stdin().is_terminal(),
        literal: true,
    };
    let script = "command -v bash >/dev/null 2>&1 && exec bash -l || exec sh -l";
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    execute(client, &args.sandbox, process, argv, Control::new()?, false).await
}

async fn execute(
    client: &Client,
    sandbox: &str,
    process: Process,
    argv: Vec<String>,
    mut control: Control,
    json: bool,
) -> Result<u8> {
    let mut request = ExecRequest {
        argv,
        env: process.env.into_iter().collect(),
        cwd: process.workdir,
        user: process.user,
        timeout_ms: process.timeout,
        literal: process.literal,
        ..ExecRequest::default()
    };
    if json {
        if process.interactive {
            let mut text = String::new();
            tokio::io::stdin().read_to_string(&mut text).await?;
            request.stdin = Some(text);
        }
        let result = client.exec(sandbox, &request).await?;
        output::json(&result)?;
        return Ok(exit_code(result.exit_code));
    }
    let mut raw = None;
    if process.tty {
        request.pty = Some(terminal::size());
        if let Ok(term) = std::env::var("TERM") {
            request.env.entry("TERM".to_owned()).or_insert(term);
        }
    }
    let ExecSession { mut input, mut output } = client.exec_stream(sandbox, request).await?;
    if process.tty {
        raw = RawMode::enter()?;
    }
    // A command may end, and its connection with it, while something is still being sent to it:
    // how it ended is what the output says, so a failed send is no error.
    if !process.interactive {
        let _ = input.close().await;
    }
    control.watch_size(raw.is_some())?;
    // Both ways at once: a command whose output is not read does not read its input.
    let (code, timed_out) = tokio::select! {
        end = receive(&mut output) => end?,
        given_up = send(&mut input, &mut control, process.interactive) => match given_up? {},
    };
    drop(raw);
    if timed_out {
        eprintln!("kiln: the command was killed by its time-out");
    }
    Ok(exit_code(code))
}

/// Prints what the command says, until it ends.
async fn receive(output: &mut ExecReader) -> Result<(i32, bool)> {
    loop {
        match output.next().await? {
            ExecOutput::Stdout(bytes) => write(&mut std::io::stdout().lock(), &bytes)?,
            ExecOutput::Stderr(bytes) => write(&mut std::io::stderr().lock(), &bytes)?,
            ExecOutput::Exit { code, timed_out } => return Ok((code, timed_out)),
        }
    }
}

/// Passes on input, sizes and signals for as long as it is polled.
async fn send(
    input: &mut ExecInput,
    control: &mut Control,
    mut reading: bool,
) -> Result<Infallible> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            count = stdin.read(&mut buffer), if reading => {
                let bytes = &buffer[..count?];
                let (sent, events) = write_input(input, control, bytes).await?;
                reading = sent && !bytes.is_empty();
                for event in events {
                    pass_on(input, event).await;
                }
            }
            event = control.next() => pass_on(input, event).await,
        }
    }
}

/// Writes input, or with no bytes ends it. A command that does not read lets this wait, and signals
/// behind it: with the second one the user gives up. Gives whether it was sent, and what waited.
async fn write_input(
    input: &mut ExecInput,
    control: &mut Control,
    bytes: &[u8],
) -> Result<(bool, Vec<ControlEvent>)> {
    let mut events = Vec::new();
    let mut writing = std::pin::pin!(async {
        match bytes {
            [] => input.close().await,
            bytes => input.write(bytes).await,
        }
    });
    loop {
        tokio::select! {
            sent = &mut writing => return Ok((sent.is_ok(), events)),
            event = control.next() => {
                let is_signal = |event: &ControlEvent| matches!(event, ControlEvent::Signal(_));
                if is_signal(&event) && events.iter().any(is_signal) {
                    bail!("interrupted; the command does not read its input and is killed");
                }
                events.push(event);
            }
        }
    }
}

async fn pass_on(input: &mut ExecInput, event: ControlEvent) {
    let _an_ended_command_needs_neither = match event {
        ControlEvent::Resized => input.resize(terminal::size()).await,
        ControlEvent::Signal(number) => input.signal(number).await,
    };
}

enum ControlEvent {
    Resized,
    Signal(i32),
}

/// The signals that are passed on. In raw mode the terminal sends no SIGINT: it goes as a byte.
struct Control {
    resized: Option<Signal>,
    interrupt: Signal,
    terminate: Signal,
}

impl Control {
    fn new() -> Result<Self> {
        Ok(Self {
            resized: None,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    fn watch_size(&mut self, on: bool) -> Result<()> {
        self.resized = on.then(|| signal(SignalKind::window_change())).transpose()?;
        Ok(())
    }

    async fn next(&mut self) -> ControlEvent {
        let resized = async {
            match &mut self.resized {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = resized => ControlEvent::Resized,
            _ = self.interrupt.recv() => ControlEvent::Signal(2),
            _ = self.terminate.recv() => ControlEvent::Signal(15),
        }
    }
}

fn write(out: &mut impl std::io::Write, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

/// The code as the shell sees it.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}
