//! The daemon's configuration: one TOML file, and an environment variable for every key.
//!
//! `docs/configuration.md` is the reference. Order, later wins: defaults, file, environment, and what
//! the command line sets on the value afterwards.

mod drivers;
mod keys;
mod load;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use kiln_build::CatalogSource;
use kiln_registry::RegistryConfig;
use serde::Deserialize;

pub(crate) use drivers::NATIVE;
pub use drivers::OciRuntimeEntry;
pub use load::ConfigError;

/// The CA bundle of Debian and its relatives.
pub(crate) const DEBIAN_CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Everything that can be set about a daemon.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// TCP address of the API; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The Unix socket of the API; `kiln.sock` in the data directory when absent.
    pub socket: Option<PathBuf>,
    /// How the log is written.
    pub log_format: LogFormat,
    /// How long a sandbox may take to end in order before it is killed, in milliseconds.
    pub stop_grace_ms: u64,
    /// How long requests in flight may take when the daemon ends, in milliseconds.
    pub drain_ms: u64,
    /// How layers are mounted.
    pub layers: Layers,
    /// How many sandboxes' worth of namespaces are kept ready.
    pub pool_size: usize,
    /// What the disks of new sandboxes are.
    pub uppers: Uppers,
    /// Size of the disk of each build step's sandbox in MiB, where disks are bounded.
    pub build_disk_mib: u32,
    /// Limits of sandboxes that set none themselves and whose image sets none.
    pub defaults: Defaults,
    /// The driver of sandboxes that name none, and of builds.
    pub driver: String,
    /// Runtimes of the `oci` driver by name; they replace the built-in ones of that name.
    pub oci: BTreeMap<String, OciRuntimeEntry>,
    /// What `gc` keeps.
    pub gc: Gc,
    /// How registries are reached.
    pub registries: RegistryConfig,
    /// Sources of base images by catalog name, in order; they replace the built-in ones of that name.
    pub catalog: BTreeMap<String, Vec<CatalogSource>>,
    /// The CA bundle of the host that sandboxes are shown; Debian's, if it is there, when absent.
    pub ca_bundle: Option<PathBuf>,
    /// Environment variables that look like keys and are none; the daemon names them in its log.
    #[serde(skip)]
    pub unknown_variables: Vec<String>,
}

/// Limits of a sandbox where nothing else sets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// CPU time in CPUs.
    pub vcpu: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processes and threads.
    pub pids: u32,
    /// Size of the disk in MiB, where disks are bounded.
    pub disk_mib: u32,
}

/// What the disks of new sandboxes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uppers {
    /// Images where the host can have them, else directories.
    #[default]
    Auto,
    /// Sparse ext4 images, bounded by their size.
    Image,
    /// Directories, which nothing bounds but the file system that they are on.
    Directory,
}

/// How layers are mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layers {
    /// As EROFS where the kernel can, else as directories.
    #[default]
    Auto,
    /// As EROFS, out of the layers' own files.
    Erofs,
    /// As plain directories, into which each layer is laid out once.
    Directory,
}

/// What `gc` keeps although nothing needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_field_names,
    reason = "they are keys of the configuration: `gc.keep_hours`"
)]
pub struct Gc {
    /// For how many hours after its last use something is kept for its own sake.
    pub keep_hours: u32,
    /// How many builds are kept, the newest, with their logs.
    pub keep_builds: u32,
    /// For how many days after its end a build is kept.
    pub keep_build_days: u32,
}

impl Default for Gc {
    fn default() -> Self {
        Self { keep_hours: 168, keep_builds: 1000, keep_build_days: 30 }
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/kiln"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            socket: None,
            log_format: LogFormat::Text,
            stop_grace_ms: 10_000,
            drain_ms: 10_000,
            layers: Layers::default(),
            pool_size: 4,
            uppers: Uppers::default(),
            build_disk_mib: 20480,
            defaults: Defaults::default(),
            driver: NATIVE.to_owned(),
            oci: BTreeMap::new(),
            gc: Gc::default(),
            registries: RegistryConfig::default(),
            catalog: BTreeMap::new(),
            ca_bundle: None,
            unknown_variables: Vec::new(),
        }
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self { vcpu: 2, memory_mib: 2048, pids: 4096, disk_mib: 10240 }
    }
}

impl Config {
    /// Where the Unix socket is.
    pub fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.data_dir.join("kiln.sock"))
    }

    /// The CA bundle that sandboxes are shown, if there is one.
    pub fn ca_bundle_path(&self) -> Option<PathBuf> {
        let debian = || Some(PathBuf::from(DEBIAN_CA_BUNDLE)).filter(|path| path.is_file());
        self.ca_bundle.clone().or_else(debian)
    }

    /// Where the first API key is written.
    pub fn api_key_path(&self) -> PathBuf {
        self.data_dir.join("api-key")
    }

    /// The directory of what does not outlive a boot: sockets, state of running sandboxes.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.data_dir.join("run")
    }
}
