//! What the harness asks the daemon for, and what it learns from the answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use kiln_client::{Client, ClientError};
use kiln_types::ErrorCode;
use kiln_types::api::{
    BuildRequest, BuildStatus, CreateSandbox, CreateSnapshot, ExecRequest, PullRequest,
};
use serde_json::json;

use crate::collect::{self, Collection};
use crate::world::{Image, Sandbox, There, World};

/// An answer that takes longer never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The base in the catalog that is made by a program of the host.
pub(crate) const DEBIAN: &str = "debian-12";

/// One request, with all that is needed to make it.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Pull {
        name: String,
        reference: String,
    },
    /// Three steps: the first two are those of `prefix`, shared by others; the third is its own.
    Build {
        name: String,
        rootfs: String,
        prefix: u64,
    },
    /// Three steps on a system that comes from a program of the host, made anew.
    Debian {
        name: String,
    },
    Create {
        name: String,
        image: String,
        /// A size that there is no disk of yet.
        disk_mib: Option<u32>,
        /// Another driver than the usual one.
        driver: Option<&'static str>,
    },
    /// Writes and syncs a file.
    Exec {
        sandbox: String,
        path: String,
        content: String,
    },
    Snapshot {
        name: String,
        sandbox: String,
    },
    Stop {
        sandbox: String,
    },
    Start {
        sandbox: String,
    },
    Remove {
        sandbox: String,
    },
    RemoveImage {
        name: String,
    },
    RemoveSnapshot {
        name: String,
    },
    Gc(Collection),
}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Done,
    /// The daemon said no, and why.
    Refused {
        code: ErrorCode,
        text: String,
    },
    /// No answer was seen.
    Lost(String),
    /// An answer that no fault excuses.
    Wrong(String),
}

impl Operation {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Pull { .. } => "pull",
            Self::Build { .. } => "build",
            Self::Debian { .. } => "build from packages",
            Self::Create { driver: Some(_), .. } => "create by a runtime",
            Self::Create { disk_mib: Some(_), .. } => "create with a new size",
            Self::Create { .. } => "create",
            Self::Exec { .. } => "exec",
            Self::Snapshot { .. } => "snapshot",
            Self::Stop { .. } => "stop",
            Self::Start { .. } => "start",
            Self::Remove { .. } => "rm",
            Self::RemoveImage { .. } => "rmi",
            Self::RemoveSnapshot { .. } => "snapshot rm",
            Self::Gc(_) => "gc",
        }
    }

    /// What it is about: two operations of one point never share this.
    pub(crate) fn subjects(&self) -> Vec<&str> {
        match self {
            Self::Pull { name, .. }
            | Self::Build { name, .. }
            | Self::RemoveImage { name }
            | Self::RemoveSnapshot { name } => vec![name],
            Self::Debian { name } => vec![name, DEBIAN],
            Self::Create { name, image, .. } => vec![name, image],
            Self::Snapshot { name, sandbox } => vec![name, sandbox],
            Self::Exec { sandbox, .. }
            | Self::Stop { sandbox }
            | Self::Start { sandbox }
            | Self::Remove { sandbox } => vec![sandbox],
            // What it may harm is looked at as a whole.
            Self::Gc(_) => vec![collect::SUBJECT],
        }
    }

    /// What has to be looked at closely afterwards.
    pub(crate) fn touches(&self, world: &World) -> Vec<String> {
        match self {
            Self::Gc(_) => world.images.keys().chain(world.sandboxes.keys()).cloned().collect(),
            _ => vec![self.subjects()[0].to_owned()],
        }
    }

    /// The programs of the host that it cannot do without.
    pub(crate) fn needs(&self, program: &str) -> bool {
        match self {
            // A disk's file system is made when there is none of its size.
            Self::Create { driver, .. } => program == "mke2fs" || *driver == Some(program),
            Self::Debian { .. } => matches!(program, "mke2fs" | "mmdebstrap"),
            Self::Build { .. } => program == "mke2fs",
            _ => false,
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, client: &Client) -> (Outcome, Duration) {
        let began = Instant::now();
        let outcome = match tokio::time::timeout(PATIENCE, self.ask_now(client)).await {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(Failed::Client(ClientError::Problem(problem)))) => {
                Outcome::Refused { code: problem.code, text: problem.to_string() }
            }
            Ok(Err(Failed::Client(error))) => Outcome::Lost(error.to_string()),
            Ok(Err(Failed::Said(code, text))) => Outcome::Refused { code, text },
            Ok(Err(Failed::Wrong(text))) => Outcome::Wrong(text),
            Err(_) => Outcome::Lost("no answer in time".into()),
        };
        (outcome, began.elapsed())
    }

    async fn ask_now(&self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::Pull { name, reference } => {
                let (reference, name) = (reference.clone(), Some(name.clone()));
                client.pull_image(&PullRequest { reference, name }).await?;
            }
            Self::Build { name, rootfs, prefix } => {
                let steps = [
                    format!("mkdir -p /srv && echo {prefix} > /srv/one"),
                    format!("head -c 50000 /bin/busybox > /srv/two && echo {prefix} >> /srv/two"),
                    format!("echo {name} > /marker"),
                ];
                build(client, name, rootfs, &steps, false).await?;
            }
            Self::Debian { name } => {
                let steps = [format!("echo {name} > /marker")];
                build(client, name, DEBIAN, &steps, true).await?;
            }
            Self::Create { name, image, disk_mib, driver } => {
                let (name, image) = (Some(name.clone()), image.clone());
                let mut create = CreateSandbox { name, image, ..CreateSandbox::default() };
                create.limits.disk_mib = *disk_mib;
                create.driver = driver.map(str::to_owned);
                client.create_sandbox(&create).await?;
            }
            Self::Exec { sandbox, path, content } => {
                let script = format!("echo {content} > {path} && sync {path} && sync");
                run(client, sandbox, &script).await?;
            }
            Self::Snapshot { name, sandbox } => {
                let (name, sandbox) = (name.clone(), sandbox.clone());
                client.create_snapshot(&CreateSnapshot { name, sandbox }).await?;
            }
            Self::Stop { sandbox } => drop(client.stop_sandbox(sandbox).await?),
            Self::Start { sandbox } => drop(client.start_sandbox(sandbox).await?),
            Self::Remove { sandbox } => client.remove_sandbox(sandbox, true).await?,
            Self::RemoveImage { name } => drop(client.remove_image(name).await?),
            Self::RemoveSnapshot { name } => client.remove_snapshot(name).await?,
            Self::Gc(collection) => collection.run(client).await?,
        }
        Ok(())
    }

    /// Before it is asked for: from now on nobody knows.
    pub(crate) fn begin(&self, world: &mut World) {
        match self {
            Self::Pull { name, .. } | Self::Build { name, .. } => {
                let files = BTreeMap::from([("/marker".to_owned(), self.marker())]);
                let image = Image { there: There::Perhaps, files, snapshot: false };
                world.images.insert(name.clone(), image);
            }
            Self::Debian { name } => {
                let marker = |text: &str| BTreeMap::from([("/marker".to_owned(), text.to_owned())]);
                let there = There::Perhaps;
                let image = Image { there, files: marker(name), snapshot: false };
                world.images.insert(name.clone(), image);
                // The system itself is an image, too, and the same each time.
                let base = Image { there, files: marker("base"), snapshot: false };
                world.images.entry(DEBIAN.to_owned()).or_insert(base);
            }
            Self::Create { name, image, .. } => {
                let files = world.images[image].files.clone();
                let sandbox = Sandbox { there: There::Perhaps, runs: Some(true), files };
                world.sandboxes.insert(name.clone(), sandbox);
            }
            Self::Snapshot { name, sandbox } => {
                let files = world.sandboxes[sandbox].files.clone();
                let image = Image { there: There::Perhaps, files, snapshot: true };
                world.images.insert(name.clone(), image);
            }
            Self::Exec { sandbox, path, .. } => {
                // Whether an old content is still there is as open as whether the new one is.
                change(world, sandbox, |known| drop(known.files.remove(path)));
            }
            Self::Stop { sandbox } | Self::Start { sandbox } => {
                change(world, sandbox, |known| known.runs = None);
            }
            Self::Remove { sandbox } => change(world, sandbox, |known| {
                known.there = There::Perhaps;
                known.runs = None;
            }),
            Self::RemoveImage { name } | Self::RemoveSnapshot { name } => {
                if let Some(image) = world.images.get_mut(name) {
                    image.there = There::Perhaps;
                }
            }
            Self::Gc(_) => {}
        }
    }

    /// After the answer.
    pub(crate) fn end(&self, world: &mut World, outcome: &Outcome) {
        let done = match outcome {
            Outcome::Done => true,
            Outcome::Refused { .. } => false,
            Outcome::Lost(_) | Outcome::Wrong(_) => return,
        };
        match self {
            Self::Pull { name, .. } | Self::Build { name, .. } | Self::Snapshot { name, .. } => {
                if done {
                    if let Some(image) = world.images.get_mut(name) {
                        image.there = There::Yes;
                    }
                } else {
                    world.images.remove(name);
                }
            }
            Self::Debian { name } => {
                if done {
                    for name in [name, DEBIAN] {
                        if let Some(image) = world.images.get_mut(name) {
                            image.there = There::Yes;
                        }
                    }
                } else {
                    // What it was to stand on may have been made before it failed.
                    world.images.remove(name);
                }
            }
            Self::Create { name, .. } => {
                if done {
                    change(world, name, |known| known.there = There::Yes);
                } else {
                    world.sandboxes.remove(name);
                }
            }
            Self::Exec { sandbox, path, content } if done => change(world, sandbox, |known| {
                known.files.insert(path.clone(), content.clone());
            }),
            Self::Stop { sandbox } if done => change(world, sandbox, |it| it.runs = Some(false)),
            Self::Start { sandbox } if done => change(world, sandbox, |it| it.runs = Some(true)),
            Self::Remove { sandbox } if done => drop(world.sandboxes.remove(sandbox)),
            Self::RemoveImage { name } | Self::RemoveSnapshot { name } if done => {
                world.images.remove(name);
            }
            // A change that was refused may have been made in part; the next look tells.
            _ => {}
        }
    }

    /// What `/marker` says in sandboxes of the image that this makes.
    fn marker(&self) -> String {
        match self {
            Self::Build { name, .. } | Self::Pull { name, .. } => name.clone(),
            _ => String::new(),
        }
    }
}

fn change(world: &mut World, sandbox: &str, change: impl FnOnce(&mut Sandbox)) {
    if let Some(known) = world.sandboxes.get_mut(sandbox) {
        change(known);
    }
}

pub(crate) enum Failed {
    Client(ClientError),
    Said(ErrorCode, String),
    Wrong(String),
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// Runs a script, which has to succeed.
async fn run(client: &Client, sandbox: &str, script: &str) -> Result<(), Failed> {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let cwd = Some("/".to_owned());
    let done = client.exec(sandbox, &ExecRequest { argv, cwd, ..ExecRequest::default() }).await?;
    match done.exit_code {
        0 => Ok(()),
        code => Err(Failed::Said(
            ErrorCode::ExecFailed,
            format!("exit code {code}: {}", done.stderr.trim()),
        )),
    }
}

/// Runs a build to its end, of which it tells. With `anew`, its base is made once more.
pub(crate) async fn build(
    client: &Client,
    name: &str,
    base: &str,
    steps: &[String],
    anew: bool,
) -> Result<(), Failed> {
    let template = json!({ "name": name, "base_image": base, "setup_commands": steps });
    let request = json!({ "source": { "template": template }, "name": name, "pull": anew });
    let request: BuildRequest =
        serde_json::from_value(request).expect("the request has the form of the API");
    let mut build = client.start_build(&request).await?;
    while build.status == BuildStatus::Running {
        tokio::time::sleep(Duration::from_millis(5)).await;
        build = client.build(&build.id).await?;
    }
    match build.failure {
        Some(failure) => Err(Failed::Said(code_of(&failure), failure.message)),
        None => Ok(()),
    }
}

fn code_of(failure: &kiln_types::event::BuildFailure) -> ErrorCode {
    let json = serde_json::to_value(failure).unwrap_or_default();
    serde_json::from_value(json["code"].clone()).unwrap_or(ErrorCode::BuildFailed)
}

/// The content of files of a running sandbox, compared with what they have to be.
pub(crate) async fn compare(
    client: &Client,
    sandbox: &str,
    files: &BTreeMap<String, String>,
) -> Result<()> {
    let mut script = String::from("true");
    for path in files.keys() {
        script.push_str(&format!("; cat {path}"));
    }
    let argv = vec!["/bin/sh".to_owned(), "-c".to_owned(), script];
    let request = ExecRequest { argv, cwd: Some("/".to_owned()), ..ExecRequest::default() };
    let done = tokio::time::timeout(PATIENCE, client.exec(sandbox, &request)).await;
    let done = match done {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => bail!("sandbox {sandbox} runs no command: {error}"),
        Err(_) => bail!("sandbox {sandbox}: a command never ends"),
    };
    let mut wanted = files.values().map(String::as_str).collect::<Vec<_>>().join("\n");
    wanted.extend((!files.is_empty()).then_some('\n'));
    if done.stdout != wanted {
        bail!(
            "sandbox {sandbox}: files {:?} should say {wanted:?} but say {:?} ({})",
            files.keys().collect::<Vec<_>>(),
            done.stdout,
            done.stderr.trim()
        );
    }
    Ok(())
}
