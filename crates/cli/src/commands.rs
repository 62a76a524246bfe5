//! One module a group of commands.

mod build;
mod df;
mod exec;
mod fsck;
mod gc;
mod images;
mod sandboxes;
mod serve;
mod snapshots;
mod system;

pub(crate) use serve::LAUNCHER;

use anyhow::Result;
use clap::CommandFactory as _;
use kiln_client::{Client, ClientError, Endpoint};
use kiln_types::ErrorCode;

use crate::args::{Cli, Command, Global};

/// Exit code of `run`, `exec`, `shell` and `fsck` when Kiln failed and not the command.
pub(crate) const KILN_FAILED: u8 = 125;
/// Exit code of `run` and `exec` when the command could not be started.
const COMMAND_NOT_STARTED: u8 = 127;

/// Runs one command; gives the exit code.
pub(crate) fn dispatch(cli: Cli) -> Result<u8> {
    match cli.command {
        // The daemon's launcher must be forked before any thread exists: no async runtime here yet.
        Command::Serve(args) => serve::serve(&args).map(|()| 0),
        Command::Openapi => system::openapi().map(|()| 0),
        Command::Completions(args) => {
            clap_complete::generate(
                args.shell,
                &mut Cli::command(),
                "kiln",
                &mut std::io::stdout().lock(),
            );
            Ok(0)
        }
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let result = runtime.block_on(call(cli.global, command));
            // A read of standard input may still be blocked on its thread: nobody waits for it.
            runtime.shutdown_background();
            result
        }
    }
}

async fn call(global: Global, command: Command) -> Result<u8> {
    let json = global.json;
    if let Command::Doctor = command {
        return system::doctor(json);
    }
    if let Command::Fsck(args) = &command
        && args.data_dir.is_some()
    {
        return fsck::offline(args, json).await;
    }
    let client = client(&global)?;
    match command {
        Command::Build(args) => return build::build(&client, &args, json).await,
        Command::Logs(args) => return build::logs(&client, &args, json).await,
        Command::Run(args) => return exec::run(&client, args, json).await,
        Command::Exec(args) => return exec::exec(&client, args, json).await,
        Command::Shell(args) => return exec::shell(&client, args).await,
        Command::Fsck(args) => return fsck::online(&client, &args, json).await,
        Command::Gc(args) => gc::gc(&client, &args, json).await?,
        Command::Df => df::df(&client, json).await?,
        Command::Builds => build::list(&client, json).await?,
        Command::Create(args) => sandboxes::create(&client, args, json).await?,
        Command::Ps => sandboxes::list(&client, json).await?,
        Command::Stop(args) => sandboxes::stop(&client, &args, json).await?,
        Command::Start(args) => sandboxes::start(&client, &args, json).await?,
        Command::Rm(args) => sandboxes::remove(&client, &args, json).await?,
        Command::Images => images::list(&client, json).await?,
        Command::Rmi(args) => images::remove(&client, &args, json).await?,
        Command::Pull(args) => images::pull(&client, args, json).await?,
        Command::Snapshot(args) => snapshots::create(&client, args, json).await?,
        Command::Snapshots(args) => snapshots::list_or_remove(&client, args, json).await?,
        Command::Serve(_) | Command::Doctor | Command::Openapi | Command::Completions(_) => {
            unreachable!("handled before a client is made")
        }
    }
    Ok(0)
}

fn client(global: &Global) -> Result<Client> {
    let endpoint = match global.host.parse()? {
        Endpoint::Http { url, .. } => Endpoint::Http { url, key: global.api_key.clone() },
        unix @ Endpoint::Unix(_) => unix,
    };
    Ok(Client::new(endpoint)?)
}

/// The exit code for `error`, `otherwise` unless the error has one of its own.
pub(crate) fn failure_code(error: &anyhow::Error, otherwise: u8) -> u8 {
    match error.downcast_ref::<ClientError>().and_then(ClientError::code) {
        Some(ErrorCode::ExecFailed) if otherwise == KILN_FAILED => COMMAND_NOT_STARTED,
        _ => otherwise,
    }
}
