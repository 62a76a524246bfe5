//! What is to be built, and with what means.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kiln_frontend::{FrontendError, base, definition, template};
use kiln_metadata::TemplateDefaults;
use kiln_roots::UpperLimits;
use kiln_runtime::Limits;
use kiln_types::api::{BuildRequest, BuildSource};
use kiln_types::{ImageDefinition, ImageName};

use crate::CatalogSource;

/// A build to be done. Its definition is valid.
#[derive(Clone, Debug)]
pub struct BuildPlan {
    /// What is built.
    pub definition: ImageDefinition,
    /// The name that the image gets.
    pub name: Option<ImageName>,
    /// Resource defaults that the image gets.
    pub defaults: TemplateDefaults,
    /// Resolve the base again instead of using the pinned one.
    pub pull: bool,
    /// Run every step, whatever the cache has. The results replace those in the cache.
    pub no_cache: bool,
}

impl BuildPlan {
    /// The plan that a request asks for: translated by its front end and checked.
    pub fn from_request(request: &BuildRequest) -> Result<Self, FrontendError> {
        let (definition, own_name, defaults) = match &request.source {
            BuildSource::Template(spec) => {
                let translated = template::translate(spec, request.literal)?;
                let template::Defaults { vcpu, memory_mib } = translated.defaults;
                let defaults = TemplateDefaults { vcpu, memory_mib };
                (translated.definition, Some(translated.name), defaults)
            }
            BuildSource::Definition(given) => {
                definition::validate(given, request.literal)?;
                (given.clone(), None, TemplateDefaults::default())
            }
        };
        let name = match &request.name {
            Some(name) => Some(base::image_name("name", name)?),
            None => own_name,
        };
        Ok(Self { definition, name, defaults, pull: request.pull, no_cache: request.no_cache })
    }
}

/// The means of a builder.
#[derive(Clone, Debug)]
pub struct BuilderConfig {
    /// Logs are kept in `<data_dir>/builds`.
    pub data_dir: PathBuf,
    /// Limits of the sandbox that a step runs in. A template that asks for more memory gets that.
    pub limits: Limits,
    /// Size of the disk of each step's sandbox, where disks are bounded.
    pub disk: UpperLimits,
    /// How long one step may take.
    pub step_timeout: Duration,
    /// How many steps run at once; further ones wait.
    pub parallel_steps: usize,
    /// Environment of steps that is not part of the image (certificates of the host).
    pub step_env: Vec<(String, String)>,
    /// The sources of each name of the catalog, in the order in which they are tried.
    pub catalog: BTreeMap<String, Vec<CatalogSource>>,
    /// How long a registry may take to say what a catalog name is, before the next source is tried.
    pub catalog_timeout: Duration,
    /// How many bytes of output a build's log keeps. The rest is dropped, and the log says so.
    pub log_limit: u64,
}

impl BuilderConfig {
    /// The usual means, with data in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        Self {
            data_dir: data_dir.into(),
            limits: Limits { vcpu: cpus, memory: 4 << 30, pids: 8192 },
            disk: UpperLimits { bytes: 20 << 30 },
            step_timeout: Duration::from_hours(1),
            parallel_steps: 4,
            step_env: Vec::new(),
            catalog: CatalogSource::default_catalog(),
            catalog_timeout: Duration::from_secs(15),
            log_limit: 256 << 20,
        }
    }
}
