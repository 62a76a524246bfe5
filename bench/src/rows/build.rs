//! Builds: all steps known, and none.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::program::{ms, succeed};
use crate::record::Recorder;
use crate::rig::{BASE, Rig};
use crate::turns::{Contestant, Cost, Measured, take};

/// The same steps in both languages: a variable, a file, three commands, and that over again.
struct Recipe {
    steps: usize,
    definition: Value,
    file: PathBuf,
    context: PathBuf,
}

impl Recipe {
    fn new(rig: &Rig, steps: usize) -> Result<Self> {
        let context = rig.path(&format!("build-{steps}"));
        fs::create_dir_all(&context)?;
        let mut definition = Vec::new();
        let mut lines = vec!["FROM localhost/base".to_owned()];
        for step in 0..steps {
            match step % 5 {
                0 => {
                    definition.push(json!({"type": "env", "vars": {format!("V{step}"): "x"}}));
                    lines.push(format!("ENV V{step}=x"));
                }
                1 => {
                    let (path, text) = (format!("/opt/file{step}"), "AAAA");
                    definition.push(json!({"type": "file", "path": path, "content_base64": text}));
                    fs::write(context.join(format!("file{step}")), [0, 0, 0])?;
                    lines.push(format!("COPY file{step} {path}"));
                }
                _ => {
                    definition.push(json!({"type": "run", "command": {"shell": command(step)}}));
                    lines.push(format!("RUN {}", command(step)));
                }
            }
        }
        fs::write(context.join("Containerfile"), lines.join("\n"))?;
        let definition = json!({"base": {"image": BASE}, "steps": definition});
        let file = context.join("kiln.json");
        fs::write(&file, definition.to_string())?;
        // The recipe is not part of what is copied.
        fs::write(context.join(".dockerignore"), "kiln.json\n")?;
        Ok(Self { steps, definition, file, context })
    }

    fn name(&self) -> String {
        format!("bench-build-{}", self.steps)
    }
}

fn command(step: usize) -> String {
    format!("echo {step} > /opt/run{step}")
}

/// The whole command, until it ends.
pub(super) fn cached_cli(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    for (steps, row, cost) in [(5, "cached-5", Cost::High), (50, "cached-50", Cost::Extreme)] {
        let recipe = Recipe::new(rig, steps)?;
        take(recorder, row, commands(rig, &recipe, false, Cost::Low, cost)?)?;
        check(rig, &recipe)?;
    }
    Ok(())
}

/// Three requests: start the build, follow its log to the end, ask how it ended.
pub(super) fn cached_api(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let kiln = rig.kiln()?;
    for (steps, row) in [(5, "cached-5-api"), (50, "cached-50-api")] {
        let recipe = Recipe::new(rig, steps)?;
        let name = recipe.name();
        kiln.build(&recipe.definition, &name, false)?;
        let contestant = Contestant::new("kiln", Cost::Low, || {
            let start = Instant::now();
            let build = kiln.build(&recipe.definition, &name, false)?;
            let time = start.elapsed();
            ensure!(build["steps_cached"] == steps, "a step ran again: {build}");
            Ok(ms(time))
        });
        take(recorder, row, vec![contestant])?;
    }
    Ok(())
}

/// The whole command, and the same without the time that the build's own commands take in a sandbox.
pub(super) fn uncached(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let recipe = Recipe::new(rig, 5)?;
    let kiln = rig.kiln()?;
    let (own, name) = (own_time(rig)?, recipe.name());
    recorder
        .note("uncached-5-engine", &format!("the three commands themselves take {own:.1} ms"))?;
    let mut contestants = commands(rig, &recipe, true, Cost::Middle, Cost::Extreme)?;
    for contestant in &mut contestants {
        let mut turn = std::mem::replace(&mut contestant.turn, Box::new(|| Ok(0.0.into())));
        contestant.turn = Box::new(move || {
            let total = turn()?.value;
            Ok(Measured { value: total, also: vec![("uncached-5-engine", total - own)] })
        });
    }
    contestants.push(Contestant::new("kiln, API", Cost::Middle, || {
        let start = Instant::now();
        let build = kiln.build(&recipe.definition, &name, true)?;
        let time = ms(start.elapsed());
        ensure!(build["steps_cached"] == 0, "a step was not run: {build}");
        Ok(Measured { value: time, also: vec![("uncached-5-engine", time - own)] })
    }));
    take(recorder, "uncached-5", contestants)?;
    check(rig, &recipe)
}

fn commands<'a>(
    rig: &'a Rig,
    recipe: &'a Recipe,
    no_cache: bool,
    kiln_cost: Cost,
    peer_cost: Cost,
) -> Result<Vec<Contestant<'a>>> {
    let (kiln, podman) = (rig.kiln()?, rig.podman()?);
    let name = recipe.name();
    let cached = if no_cache { 0 } else { recipe.steps };
    let mut first = !no_cache;
    let file = recipe.file.display().to_string();
    let mut words = vec!["build".to_owned(), file, "--json".to_owned()];
    words.extend(["--name".to_owned(), name.clone()]);
    words.extend(no_cache.then(|| "--no-cache".to_owned()));
    let mut contestants = vec![Contestant::new("kiln build", kiln_cost, move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = succeed(&mut kiln.cli(&words))?;
        let build: Value = serde_json::from_str(&done.stdout)?;
        // The first turn, which is not counted, fills the cache.
        ensure!(first || build["steps_cached"] == cached, "not {cached} cached: {build}");
        first = false;
        Ok(ms(done.time))
    })];
    for (title, mut words) in [
        ("podman build", vec!["podman", "build"]),
        ("buildah bud, chroot isolation", vec!["buildah", "bud", "--isolation", "chroot"]),
    ] {
        // Each has a name of its own, so that each checks its own cache and result.
        let tag = format!("{name}-{}", words[0]);
        words.push("--layers");
        words.extend(no_cache.then_some("--no-cache"));
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        words.extend(["-t".to_owned(), tag, recipe.context.display().to_string()]);
        let mut first = !no_cache;
        contestants.push(Contestant::new(title, peer_cost, move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let done = podman.run(&words)?;
            let hits = done.stdout.matches("Using cache").count();
            ensure!(
                first || hits == cached,
                "{hits} steps instead of {cached} came from the cache"
            );
            first = false;
            Ok(ms(done.time))
        }));
    }
    Ok(contestants)
}

/// All of them made the same files.
fn check(rig: &Rig, recipe: &Recipe) -> Result<()> {
    let (kiln, podman) = (rig.kiln()?, rig.podman()?);
    let script = "cd /opt; ls; cat run*; echo $V0";
    let sandbox = kiln.create(&recipe.name())?;
    let ours = kiln.exec(&sandbox, &["sh", "-c", script])?;
    kiln.remove(&sandbox)?;
    ensure!(ours.ends_with("x\n"), "the build lost its variable: {ours:?}");
    for tool in ["podman", "buildah"] {
        let image = format!("localhost/{}-{tool}", recipe.name());
        let theirs =
            podman.run(&["podman", "run", "--rm", "--network=none", &image, "sh", "-c", script])?;
        ensure!(ours == theirs.stdout, "{tool} made {:?}, Kiln {ours:?}", theirs.stdout);
    }
    Ok(())
}

/// Milliseconds that the three commands of a recipe take in a sandbox, shell included.
fn own_time(rig: &Rig) -> Result<f64> {
    const TIMES: u32 = 100;
    let kiln = rig.kiln()?;
    let sandbox = kiln.create(BASE)?;
    let script =
        format!("i=0; while [ $i -lt {TIMES} ]; do sh -c '{}'; i=$((i+1)); done", command(2));
    let start = Instant::now();
    kiln.exec(&sandbox, &["sh", "-c", &script])?;
    let time = ms(start.elapsed()) / f64::from(TIMES) * 3.0;
    kiln.remove(&sandbox)?;
    Ok(time)
}
