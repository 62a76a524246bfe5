//! `serve`: the daemon.

use std::io::IsTerminal as _;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use kiln_runtime::Launcher;
use kiln_server::{Config, LogFormat, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::args::Serve;
use crate::output;

/// The only argument of a process that is to be a launcher, in the place of one that has died.
pub(crate) const LAUNCHER: &str = "__launcher";

/// Runs the daemon until it is told to end.
pub(crate) fn serve(args: &Serve) -> Result<()> {
    if kiln_failpoint::ENABLED && std::env::var_os("KILN_FAIL_POINT").is_some_and(|it| it == "list")
    {
        return list_fail_points();
    }
    let config = configuration(args)?;
    start_log(config.log_format);
    // The launcher is a copy of this process, so it comes before anything that has threads.
    let launcher = Launcher::start()?.replaceable(&[LAUNCHER]);
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Server::run(config, launcher, |ready| {
        // Whoever started the daemon waits for this line; if nobody reads it, that is no fault.
        let _ = output::line(&format!(
            "kiln is ready: http://{} (key in {}), socket {}",
            ready.address,
            ready.api_key.display(),
            ready.socket.display(),
        ));
    }))?;
    Ok(())
}

/// Prints the fail points of this build.
fn list_fail_points() -> Result<()> {
    for point in kiln_failpoint::POINTS {
        let fails = if point.can_fail { "kill, error, enospc" } else { "kill" };
        output::line(&format!("{}\t{}\t{fails}\t{}", point.name, point.area, point.state))?;
    }
    Ok(())
}

/// Every running sandbox costs the daemon descriptors. What it starts sets limits of its own.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "could not raise the limit on open files");
    }
}

/// The file and the environment, then the options, which win.
pub(crate) fn configuration(args: &Serve) -> Result<Config> {
    let mut config = Config::load(args.config.as_deref())?;
    if let Some(directory) = &args.data_dir {
        config.data_dir = std::path::absolute(directory)
            .with_context(|| format!("--data-dir {} is not usable", directory.display()))?;
    }
    if let Some(listen) = &args.listen {
        config.listen = listen.parse::<SocketAddr>().with_context(|| {
            format!("--listen {listen} is not an address; give IP:PORT, such as 127.0.0.1:7070")
        })?;
    }
    config.check()?;
    Ok(config)
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("KILN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}
