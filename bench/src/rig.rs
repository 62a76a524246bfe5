//! What contestants share: one base image, one registry, one directory. Everything is made when a row first
//! asks for it, and is gone at the end.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::interrupt;
use crate::kiln::{DEFAULT, FLAVOURS, Flavour, Kiln};
use crate::peers::{Bundle, OciRuntime, Podman, Registry};
use crate::place::Place;
use crate::program;
use crate::record::Recorder;
use crate::turns::Cost;
use anyhow::{Context as _, Result};

/// What the base image is called in Kiln's store.
pub(crate) const BASE: &str = "bench-base";

/// The rig of one run. Fields are dropped in order: the place is the last.
#[derive(Debug)]
pub(crate) struct Rig {
    kilns: [OnceCell<Option<Kiln>>; FLAVOURS.len()],
    podman: OnceCell<Podman>,
    runc: OnceCell<OciRuntime>,
    crun: OnceCell<OciRuntime>,
    runsc: OnceCell<OciRuntime>,
    bundle: OnceCell<Bundle>,
    registry: OnceCell<Registry>,
    layout: OnceCell<PathBuf>,
    base: OnceCell<PathBuf>,
    program: PathBuf,
    cache: PathBuf,
    place: Place,
}

impl Rig {
    /// A rig in a place of its own. What takes long to make and is always the same stays in `cache`.
    pub(crate) fn new(program: &Path, cache: &Path) -> Result<Self> {
        fs::create_dir_all(cache)?;
        let program =
            program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
        Ok(Self {
            kilns: Default::default(),
            podman: OnceCell::new(),
            runc: OnceCell::new(),
            crun: OnceCell::new(),
            runsc: OnceCell::new(),
            bundle: OnceCell::new(),
            registry: OnceCell::new(),
            layout: OnceCell::new(),
            base: OnceCell::new(),
            program,
            cache: cache.canonicalize()?,
            place: Place::new()?,
        })
    }

    /// A path in the directory of this run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path.join(name)
    }

    /// A directory that no disk is behind, where the host has that.
    pub(crate) fn memory(&self) -> PathBuf {
        self.place.memory()
    }

    /// The `kiln` program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The daemon as it comes, with the base image.
    pub(crate) fn kiln(&self) -> Result<&Kiln> {
        self.flavour(&DEFAULT)?.context("the daemon refuses its defaults")
    }

    /// A daemon of a flavour, with the base image; `None` when it does not know the flavour.
    pub(crate) fn flavour(&self, flavour: &Flavour) -> Result<Option<&Kiln>> {
        let index = FLAVOURS.iter().position(|other| other == flavour);
        let cell = &self.kilns[index.context("no such flavour")?];
        let made = get_or_try(cell, || {
            let registry = self.registry()?;
            let data = self.path(flavour.directory);
            let (kiln, _) = Kiln::start(&self.program, &data, flavour.env, &registry.host())?;
            for (variable, _) in flavour.env {
                if !kiln.knows(variable)? {
                    return Ok(None);
                }
            }
            kiln.pull(&registry.reference(), BASE)?;
            Ok(Some(kiln))
        })?;
        Ok(made.as_ref())
    }

    /// The daemons of all flavours that there are, the default first.
    pub(crate) fn flavours(&self) -> Result<Vec<(&'static str, &Kiln)>> {
        let mut all = Vec::new();
        for flavour in &FLAVOURS {
            if let Some(kiln) = self.flavour(flavour)? {
                all.push((flavour.name, kiln));
            }
        }
        Ok(all)
    }

    /// podman, with the base image.
    pub(crate) fn podman(&self) -> Result<&Podman> {
        get_or_try(&self.podman, || {
            Podman::start(&self.path("podman"), &self.registry()?.reference())
        })
    }

    /// runc.
    pub(crate) fn runc(&self) -> &OciRuntime {
        self.runc.get_or_init(|| OciRuntime::runc(&self.path("runc")))
    }

    /// crun.
    pub(crate) fn crun(&self) -> Result<&OciRuntime> {
        get_or_try(&self.crun, || OciRuntime::crun(&self.path("crun")))
    }

    /// runsc.
    fn runsc(&self) -> &OciRuntime {
        self.runsc.get_or_init(|| OciRuntime::runsc(&self.path("runsc")))
    }

    /// The runtimes that there are, and what a turn of each costs; a note says which is missing.
    pub(crate) fn runtimes(
        &self,
        recorder: &mut Recorder,
        row: &str,
    ) -> Result<Vec<(&OciRuntime, Cost)>> {
        let mut runtimes = vec![(self.runc(), Cost::Middle), (self.crun()?, Cost::Low)];
        if program::command(&["runsc", "--version"]).output().is_ok() {
            runtimes.push((self.runsc(), Cost::High));
        } else {
            recorder.note(row, "without runsc, which is not installed")?;
        }
        Ok(runtimes)
    }

    /// The base image, unpacked for the runtimes.
    pub(crate) fn bundle(&self) -> Result<&Bundle> {
        get_or_try(&self.bundle, || Bundle::unpack(self.layout()?, &self.path("bundle")))
    }

    /// The registry, with the base image.
    pub(crate) fn registry(&self) -> Result<&Registry> {
        get_or_try(&self.registry, || {
            Registry::start(&self.cache.join("registry"), &self.place.path, self.layout()?)
        })
    }

    /// The base image as an OCI layout: one layer, gzip.
    pub(crate) fn layout(&self) -> Result<&Path> {
        let layout = get_or_try(&self.layout, || {
            let layout = self.cache.join("layout");
            if layout.exists() {
                return Ok(layout);
            }
            let part = self.cache.join("layout-part");
            let _ = fs::remove_dir_all(&part);
            let image = format!("{}:base", part.display());
            let base = self.base()?.display().to_string();
            for words in [
                &["init", "--layout", &part.display().to_string()][..],
                &["new", "--image", &image],
                &["raw", "add-layer", "--image", &image, &base],
                &["config", "--image", &image, "--config.cmd", "/bin/bash"],
                &["gc", "--layout", &part.display().to_string()],
            ] {
                program::succeed(Command::new("umoci").args(words))?;
            }
            fs::rename(&part, &layout)?;
            Ok(layout)
        })?;
        Ok(layout)
    }

    /// The base image's tar: Debian's minimal system.
    pub(crate) fn base(&self) -> Result<&Path> {
        let base = get_or_try(&self.base, || {
            let base = self.cache.join("base.tar");
            if base.exists() {
                return Ok(base);
            }
            eprintln!("bench: making the base image");
            let part = self.cache.join("part-base.tar");
            let mut make = Command::new("mmdebstrap");
            make.args(["--variant=minbase", "bookworm"]).arg(&part);
            program::succeed(make.env("SOURCE_DATE_EPOCH", "1700000000"))?;
            fs::rename(&part, &base)?;
            Ok(base)
        })?;
        Ok(base)
    }
}

fn get_or_try<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if cell.get().is_none() {
        interrupt::check()?;
        let made = make()?;
        assert!(cell.set(made).is_ok(), "nobody makes it meanwhile");
    }
    Ok(cell.get().expect("it was just made"))
}
