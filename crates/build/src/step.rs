//! What a step means: its title, what it runs, what it changes in the image's config.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kiln_frontend::argv::quoted;
use kiln_types::definition::{DEFAULT_PATH, DEFAULT_WORKDIR};
use kiln_types::{ImageConfig, RunCommand, Step};

mod execute;

pub(crate) use execute::{Executed, Limited, StepFailure, UPPER_PREFIX};

/// What has to be done in a sandbox for a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nothing: the step changes only the config.
    Nothing,
    /// A command.
    Command(Command),
    /// A file to write.
    File { path: String, content: Vec<u8>, mode: u32 },
    /// A directory to make.
    Directory { path: String },
}

/// A command of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) argv: Vec<String>,
    /// The step's own environment, above the image's.
    pub(crate) env: Vec<(&'static str, &'static str)>,
    /// The user; `None`: root, whatever the image's user is.
    pub(crate) user: Option<String>,
    /// The command as people would write it.
    pub(crate) shown: String,
    /// What an image without the program needs.
    pub(crate) needs: Option<&'static str>,
}

impl Command {
    /// The way out, if the command failed since the image does not have its program.
    pub(crate) fn hint(
        &self,
        exit_code: Option<i32>,
        last_lines: &[String],
    ) -> Option<&'static str> {
        // The shell did not find it, or Python not its module.
        let missing = exit_code == Some(127)
            || last_lines.iter().any(|line| line.ends_with("No module named pip"));
        self.needs.filter(|_| missing)
    }
}

/// Downloads `packages` and installs them, then removes what only a further install would need. Without
/// the error mode, an archive that cannot be reached would be passed over, and the step would be known
/// with older packages, or without those that are said not to exist.
const APT: &str = "set -e
apt-get update -o APT::Update::Error-Mode=any
apt-get install -y --no-install-recommends -- \"$@\"
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin";
const APT_ENV: &[(&str, &str)] = &[("DEBIAN_FRONTEND", "noninteractive")];

const APT_NEEDS: &str = "apt packages need a base with apt-get, such as debian-12";
const PIP_NEEDS: &str = "pip packages need an apt step with `python3` and `python3-pip` before them, or a base that has pip";
const NPM_NEEDS: &str =
    "npm packages need an apt step with `npm` before them, or a base that has npm";

const PIP: &[&str] = &["python3", "-m", "pip", "install", "--no-cache-dir"];
/// The system's Python is the sandbox's own: nobody else manages it (PEP 668).
const PIP_ENV: &[(&str, &str)] = &[
    ("PIP_BREAK_SYSTEM_PACKAGES", "1"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIP_NO_INPUT", "1"),
    ("PIP_ROOT_USER_ACTION", "ignore"),
];

const NPM: &str = "set -e
npm install --global --no-fund --no-audit -- \"$@\"
rm -rf /tmp/.kiln-npm";
const NPM_ENV: &[(&str, &str)] =
    &[("npm_config_cache", "/tmp/.kiln-npm"), ("npm_config_update_notifier", "false")];

/// What has to be done for `step` in a sandbox whose image has `config` so far.
pub(crate) fn work(step: &Step, config: &ImageConfig) -> Work {
    match step {
        Step::Apt { packages } => Work::Command(Command {
            argv: script(APT, "apt", packages),
            env: APT_ENV.to_vec(),
            user: None,
            shown: format!(
                "apt-get update && apt-get install -y --no-install-recommends {}",
                words(packages)
            ),
            needs: Some(APT_NEEDS),
        }),
        Step::Pip { packages } => {
            let argv: Vec<String> =
                PIP.iter().map(ToString::to_string).chain(packages.iter().cloned()).collect();
            let shown = words(&argv);
            let (env, needs) = (PIP_ENV.to_vec(), Some(PIP_NEEDS));
            Work::Command(Command { argv, env, user: None, shown, needs })
        }
        Step::Npm { packages } => Work::Command(Command {
            argv: script(NPM, "npm", packages),
            env: NPM_ENV.to_vec(),
            user: None,
            shown: format!("npm install --global {}", words(packages)),
            needs: Some(NPM_NEEDS),
        }),
        Step::Run { command } => {
            let (argv, shown) = match command {
                RunCommand::Shell(text) => {
                    (vec!["/bin/sh".into(), "-c".into(), text.clone()], text.clone())
                }
                RunCommand::Argv(argv) => (argv.clone(), words(argv)),
            };
            let (env, user) = (Vec::new(), config.user.clone());
            Work::Command(Command { argv, env, user, shown, needs: None })
        }
        Step::File(file) => Work::File {
            path: file.path.clone(),
            content: BASE64_STANDARD
                .decode(&file.content_base64)
                .expect("a definition is validated before it is built"),
            mode: file.mode,
        },
        Step::Workdir { path } => Work::Directory { path: path.clone() },
        Step::Env { .. } | Step::User { .. } | Step::Cmd { .. } => Work::Nothing,
    }
}

/// Applies what `step` says to the config.
pub(crate) fn configure(step: &Step, config: &mut ImageConfig) {
    match step {
        Step::Env { vars } => config.env.extend(vars.clone()),
        Step::Workdir { path } => config.workdir = Some(path.clone()),
        Step::User { user } => config.user = Some(user.clone()),
        Step::Cmd { argv } => config.cmd.clone_from(argv),
        Step::Apt { .. }
        | Step::Pip { .. }
        | Step::Npm { .. }
        | Step::Run { .. }
        | Step::File(_) => {}
    }
}

/// A step in one line. Values of variables are not shown: a log is read by many.
pub(crate) fn title(step: &Step) -> String {
    match step {
        Step::Apt { packages } => format!("apt {}", words(packages)),
        Step::Pip { packages } => format!("pip {}", words(packages)),
        Step::Npm { packages } => format!("npm {}", words(packages)),
        Step::Run { command: RunCommand::Shell(text) } => format!("run {}", one_line(text)),
        Step::Run { command: RunCommand::Argv(argv) } => format!("run {}", one_line(&words(argv))),
        Step::File(file) => format!("file {} (mode {:04o})", file.path, file.mode),
        Step::Env { vars } => {
            format!("env {}", vars.keys().map(String::as_str).collect::<Vec<_>>().join(" "))
        }
        Step::Workdir { path } => format!("workdir {path}"),
        Step::User { user } => format!("user {user}"),
        Step::Cmd { argv } => format!("cmd {}", one_line(&words(argv))),
    }
}

/// The working directory of commands.
pub(crate) fn directory(config: &ImageConfig) -> &str {
    config.workdir.as_deref().unwrap_or(DEFAULT_WORKDIR)
}

/// The environment of a command: the default path, the image's variables so far, those of every step
/// of this host, those of this command; later ones win.
pub(crate) fn environment(
    config: &ImageConfig,
    of_host: &[(String, String)],
    own: &[(&'static str, &'static str)],
) -> Vec<(String, String)> {
    let mut env = std::collections::BTreeMap::from([("PATH", DEFAULT_PATH)]);
    env.extend(config.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    env.extend(of_host.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    env.extend(own.iter().copied());
    env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A shell script that gets `packages` as its arguments, which no shell ever parses.
fn script(text: &str, name: &str, packages: &[String]) -> Vec<String> {
    let fixed = ["/bin/sh", "-c", text, name].map(str::to_owned);
    fixed.into_iter().chain(packages.iter().cloned()).collect()
}

fn words(argv: &[String]) -> String {
    argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn one_line(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn packages_are_arguments_not_text_of_a_script() {
        let step = Step::Apt { packages: strings(&["git", "libc6=2.36-9"]) };
        let Work::Command(command) = work(&step, &ImageConfig::default()) else {
            panic!("{step:?}")
        };
        assert_eq!(command.argv[..2], ["/bin/sh", "-c"]);
        assert_eq!(command.argv[3..], ["apt", "git", "libc6=2.36-9"]);
        assert!(!command.argv[2].contains("git"));
        assert_eq!(
            command.shown,
            "apt-get update && apt-get install -y --no-install-recommends git 'libc6=2.36-9'"
        );
    }

    #[test]
    fn packages_are_installed_by_root_and_commands_run_as_the_user() {
        let config = ImageConfig { user: Some("dev".into()), ..ImageConfig::default() };
        for (step, user) in [
            (Step::Pip { packages: strings(&["numpy"]) }, None),
            (Step::Npm { packages: strings(&["left-pad"]) }, None),
            (Step::Run { command: RunCommand::Shell("id".into()) }, Some("dev")),
            (Step::Run { command: RunCommand::Argv(strings(&["id"])) }, Some("dev")),
        ] {
            let Work::Command(command) = work(&step, &config) else { panic!("{step:?}") };
            assert_eq!(command.user.as_deref(), user, "{step:?}");
        }
    }

    #[test]
    fn config_steps() {
        let mut config = ImageConfig::default();
        let vars = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        for step in [
            Step::Env { vars: vars(&[("A", "1"), ("B", "x=\"$y\"\n")]) },
            Step::Env { vars: vars(&[("A", "2")]) },
            Step::User { user: "dev".into() },
            Step::Cmd { argv: strings(&["serve", "--all"]) },
            Step::Workdir { path: "/srv".into() },
        ] {
            configure(&step, &mut config);
        }
        assert_eq!(config.env, vars(&[("A", "2"), ("B", "x=\"$y\"\n")]));
        assert_eq!(config.user.as_deref(), Some("dev"));
        assert_eq!(config.cmd, ["serve", "--all"]);
        assert_eq!(directory(&config), "/srv");
        assert_eq!(directory(&ImageConfig::default()), "/workspace");
    }

    #[test]
    fn environment_in_its_order() {
        let mut config = ImageConfig::default();
        let default: BTreeMap<String, String> =
            environment(&config, &[], &[]).into_iter().collect();
        assert_eq!(default["PATH"], DEFAULT_PATH);
        config.env.insert("PATH".into(), "/opt/bin".into());
        config.env.insert("X".into(), "image".into());
        let host = [("X".to_owned(), "host".to_owned()), ("Y".to_owned(), "host".to_owned())];
        let env: BTreeMap<String, String> =
            environment(&config, &host, &[("Y", "own")]).into_iter().collect();
        assert_eq!((&*env["PATH"], &*env["X"], &*env["Y"]), ("/opt/bin", "host", "own"));
    }

    #[test]
    fn titles_are_one_line_and_show_no_values() {
        let secret = Step::Env { vars: BTreeMap::from([("TOKEN".into(), "s3cret".into())]) };
        assert_eq!(title(&secret), "env TOKEN");
        let long = Step::Run { command: RunCommand::Shell(format!("a\n  b {}", "x".repeat(500))) };
        let title = title(&long);
        assert!(title.starts_with("run a b xxx") && title.ends_with('…') && title.len() < 220);
    }
}
