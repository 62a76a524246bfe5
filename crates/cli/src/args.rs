//! The command line, as types. What each command does is in `commands`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

/// Turns the description of an environment into a running sandbox.
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Start with:\n  \
        kiln serve                              run the daemon (as root)\n  \
        kiln build template.json                build an image\n  \
        kiln run NAME -- python3 -c 'print(1)'  run a command in a fresh sandbox of it\n\n\
        Every command takes --json. The daemon is found by --host or KILN_HOST."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What is wrong with the options as a whole: one that would have no effect is refused.
    pub(crate) fn conflict(&self) -> Option<&'static str> {
        if !self.global.json {
            return None;
        }
        match &self.command {
            Command::Shell(_) => Some(
                "`--json` has no meaning for `shell`, whose output is a terminal's; use `kiln exec \
                 --json SANDBOX -- COMMAND`",
            ),
            Command::Run(Run { process, .. }) | Command::Exec(Exec { process, .. })
                if process.tty =>
            {
                Some("`--json` cannot be used with `--tty`: a terminal's output is no result")
            }
            Command::Serve(_) => Some(
                "`--json` has no meaning for `serve`; for a log in JSON set `log_format = \"json\"`",
            ),
            Command::Completions(_) => Some("`--json` has no meaning for `completions`"),
            _ => None,
        }
    }
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The daemon: a socket path, or http://HOST:PORT (then KILN_API_KEY holds the key)
    #[arg(
        long,
        global = true,
        env = "KILN_HOST",
        value_name = "ENDPOINT",
        default_value = "/var/lib/kiln/kiln.sock"
    )]
    pub host: String,
    /// The API key for an http:// endpoint
    #[arg(long, global = true, env = "KILN_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Print the result as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon
    Serve(Serve),
    /// Build an image from a template or an image definition
    Build(Build),
    /// Run a command in a fresh sandbox, and remove the sandbox
    #[command(
        after_help = "The exit code is the command's; 125 when Kiln itself failed, 127 when \
        the command could not be started."
    )]
    Run(Run),
    /// Make and start a sandbox, and print its id
    Create(Create),
    /// Run a command in a running sandbox
    #[command(
        after_help = "The exit code is the command's; 125 when Kiln itself failed, 127 when \
        the command could not be started."
    )]
    Exec(Exec),
    /// Open an interactive shell in a running sandbox
    Shell(Shell),
    /// List sandboxes
    Ps,
    /// Stop sandboxes; their disks are kept
    Stop(Sandboxes),
    /// Start stopped sandboxes
    Start(Sandboxes),
    /// Remove sandboxes and their disks
    Rm(Rm),
    /// List images
    Images,
    /// Remove images, or just one of their names
    Rmi(Rmi),
    /// Fetch an image from its registry
    Pull(Pull),
    /// Save a sandbox's disk as a named image
    Snapshot(Snapshot),
    /// List snapshots, or remove one
    Snapshots(Snapshots),
    /// Show the log of a build, and follow it while it runs
    Logs(Logs),
    /// List builds
    Builds,
    /// Say what takes how much room
    Df,
    /// Remove what nothing needs: unused images, old build results and logs
    Gc(Gc),
    /// Read everything that is stored and say what is damaged
    #[command(
        after_help = "The exit code is 0 when nothing is wrong (any more), 1 when damage was found, 125 when \
        Kiln itself failed."
    )]
    Fsck(Fsck),
    /// Say what this host offers and what is missing
    Doctor,
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the OpenAPI document
    #[command(hide = true)]
    Openapi,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Configuration file (TOML); every key is also an environment variable KILN_…
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Where everything is kept [default: /var/lib/kiln]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
    /// Address of the HTTP API; port 0 picks a free one [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// A template or image definition (JSON); `-` reads standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Name for the image, instead of the template's own
    #[arg(long, short, value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// Resolve the base again instead of using the pinned one
    #[arg(long)]
    pub pull: bool,
    /// Run every step, whatever the cache has
    #[arg(long)]
    pub no_cache: bool,
    /// Accept bare shell operators as argv elements
    #[arg(long)]
    pub literal: bool,
    /// Print only the image's name
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Process {
    /// Set a variable (may be repeated)
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// Working directory [default: the image's, or /workspace]
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User: name, uid, name:group or uid:gid [default: the image's, or root]
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// Kill the command and all it started after this time (`30s`, `5m`)
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    pub timeout: Option<u64>,
    /// Pass standard input on
    #[arg(long, short)]
    pub interactive: bool,
    /// Run on a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Accept bare shell operators (`&&`, `|`, `>`, …) as argv elements
    #[arg(long)]
    pub literal: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Resources {
    /// CPU limit, in CPUs
    #[arg(long, value_name = "N")]
    pub vcpu: Option<u32>,
    /// Memory limit in MiB
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,
    /// Limit on processes and threads
    #[arg(long, value_name = "N")]
    pub pids: Option<u32>,
    /// Size of the disk for what the sandbox changes
    #[arg(long, value_name = "MIB")]
    pub disk: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Driver {
    /// What runs the sandbox: native, runc, crun or runsc [default: the daemon's `driver`]
    #[arg(long, value_name = "DRIVER")]
    pub driver: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Image name or digest, snapshot name, or catalog name
    pub image: String,
    #[command(flatten)]
    pub process: Process,
    #[command(flatten)]
    pub resources: Resources,
    #[command(flatten)]
    pub driver: Driver,
    /// Program and arguments, after `--` [default: the image's]
    #[arg(last = true)]
    pub argv: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Image name or digest, snapshot name, or catalog name
    pub image: String,
    /// A name to call it by
    #[arg(long, short)]
    pub name: Option<String>,
    /// Set a variable for every process of the sandbox (may be repeated)
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    #[command(flatten)]
    pub resources: Resources,
    #[command(flatten)]
    pub driver: Driver,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Sandbox id or name
    pub sandbox: String,
    #[command(flatten)]
    pub process: Process,
    /// Program and arguments, after `--`
    #[arg(last = true, required = true)]
    pub argv: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Shell {
    /// Sandbox id or name
    pub sandbox: String,
    /// User: name, uid, name:group or uid:gid
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Sandboxes {
    /// Sandbox ids or names
    #[arg(required = true)]
    pub sandboxes: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Sandbox ids or names
    #[arg(required = true)]
    pub sandboxes: Vec<String>,
    /// Stop those that run
    #[arg(long, short)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// Image names or digests
    #[arg(required = true)]
    pub images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// OCI reference, such as docker.io/library/debian:bookworm-slim
    pub reference: String,
    /// Local name, instead of the reference
    #[arg(long, short, value_name = "NAME[:TAG]")]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    /// Sandbox id or name
    pub sandbox: String,
    /// The snapshot's name
    pub name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Snapshots {
    #[command(subcommand)]
    pub command: Option<SnapshotsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotsCommand {
    /// Remove a snapshot; sandboxes made from it are not affected
    Rm {
        /// The snapshot's name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Build id
    pub build: String,
    /// Begin with this event number
    #[arg(long, default_value_t = 0)]
    pub from: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Only list what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Remove the whole build cache and every unused image without a name, however young
    #[arg(long, conflicts_with = "keep")]
    pub all: bool,
    /// Keep what was made or used within this time (`12h`, `7d`) [default: gc.keep_hours of the daemon]
    #[arg(long, value_name = "TIME", value_parser = hours)]
    pub keep: Option<Hours>,
}

/// A whole number of hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hours(pub u32);

#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// Repair what can be repaired; what cannot is put out of use
    #[arg(long)]
    pub repair: bool,
    /// Look at this data directory without a daemon, which must not run on it
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn duration_ms(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        unit => return Err(format!("`{unit}` is not a unit; use ms, s, m or h")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{digits}` is not a whole number"))?;
    number.checked_mul(factor).filter(|&ms| ms > 0).ok_or_else(|| "out of range".to_owned())
}

fn hours(text: &str) -> Result<Hours, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "h" => 1,
        "d" => 24,
        unit => return Err(format!("`{unit}` is not a unit; use h or d")),
    };
    let number: u32 = digits.parse().map_err(|_| format!("`{digits}` is not a whole number"))?;
    number.checked_mul(factor).map(Hours).ok_or_else(|| "out of range".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        for (text, ms) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("7", 7000)] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "s", "1.5s", "3d", "0s", "-1s", "99999999999999999999s"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }
}
