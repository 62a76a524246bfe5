//! The drivers: which there are, and which runs what names none.

use std::path::PathBuf;

use kiln_runtime::OciConfig;
use kiln_runtime::oci::Flavour;
use serde::Deserialize;

use super::{Config, ConfigError};

/// The driver that needs no other program.
pub(crate) const NATIVE: &str = "native";

/// A runtime of the `oci` driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OciRuntimeEntry {
    /// Which runtime it is: `runc`, `crun` or `runsc`; what it is called, when absent.
    pub runtime: Option<String>,
    /// Its program; looked for in `PATH` by the runtime's name when absent.
    pub path: Option<PathBuf>,
    /// More options, before the runtime's command.
    pub args: Vec<String>,
}

impl Config {
    /// The runtimes of the `oci` driver: the built-in ones, as far as the configuration does not say
    /// something else about them, and those of the configuration.
    ///
    /// # Errors
    /// When an entry cannot be used.
    pub(crate) fn oci_runtimes(&self) -> Result<Vec<OciConfig>, ConfigError> {
        let built_in = Flavour::ALL.into_iter().filter(|flavour| {
            let name = flavour.name();
            !self.oci.contains_key(name)
        });
        let mut all: Vec<OciConfig> = built_in.map(OciConfig::new).collect();
        for (name, entry) in &self.oci {
            all.push(runtime(name, entry)?);
        }
        Ok(all)
    }

    /// Refuses drivers that there cannot be.
    pub(super) fn check_drivers(&self) -> Result<(), ConfigError> {
        let all = self.oci_runtimes()?;
        if self.driver != NATIVE && !all.iter().any(|other| other.name == self.driver) {
            return Err(ConfigError::Range {
                key: "driver",
                value: self.driver.clone(),
                expected: "`native`, `runc`, `crun`, `runsc`, or the name of an entry of `oci`",
            });
        }
        Ok(())
    }
}

fn runtime(name: &str, entry: &OciRuntimeEntry) -> Result<OciConfig, ConfigError> {
    let range = |key, value: &str, expected| {
        Err(ConfigError::Range { key, value: value.to_owned(), expected })
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 32 || !name.chars().all(plain) || name == NATIVE {
        let expected = "by 1 to 32 lower-case letters, digits and `-`, and not `native`";
        return range("oci", name, expected);
    }
    let kind = entry.runtime.as_deref().unwrap_or(name);
    let Some(flavour) = Flavour::named(kind) else {
        return range("oci.*.runtime", kind, "`runc`, `crun` or `runsc`");
    };
    let path = entry.path.clone().unwrap_or_else(|| flavour.name().into());
    if path.components().count() > 1 && !path.is_absolute() {
        let expected = "an absolute path, or a name to look for in PATH";
        return range("oci.*.path", &path.display().to_string(), expected);
    }
    Ok(OciConfig { name: name.to_owned(), flavour, path, args: entry.args.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_built_in_runtimes_are_there_and_can_be_changed() {
        let names = |config: &Config| -> Vec<String> {
            config.oci_runtimes().unwrap().into_iter().map(|runtime| runtime.name).collect()
        };
        assert_eq!(names(&Config::default()), ["runc", "crun", "runsc"]);
        let changed = config(
            "driver = \"gvisor\"\n[oci.runc]\npath = \"/opt/runc\"\nargs = [\"--debug\"]\n\
             [oci.gvisor]\nruntime = \"runsc\"\n",
        );
        changed.check_drivers().unwrap();
        assert_eq!(names(&changed), ["crun", "runsc", "gvisor", "runc"]);
        let all = changed.oci_runtimes().unwrap();
        assert_eq!(all[2].flavour, Flavour::Runsc);
        assert_eq!(all[2].path, PathBuf::from("runsc"));
        assert_eq!((all[3].path.as_path(), all[3].args.len()), ("/opt/runc".as_ref(), 1));
    }

    #[test]
    fn what_cannot_be_a_driver_is_refused() {
        for (text, expected) in [
            ("driver = \"podman\"", "`driver` is podman"),
            ("[oci.youki]", "`oci.*.runtime` is youki"),
            ("[oci.native]", "`oci` is native"),
            ("[oci.\"a b\"]", "`oci` is a b"),
            ("[oci.runc]\npath = \"bin/runc\"", "`oci.*.path` is bin/runc"),
        ] {
            let error = config(text).check_drivers().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
