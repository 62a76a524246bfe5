//! Reading the configuration.

use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Config;
use super::keys::{Form, KEYS, is_unknown, variable};

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("could not read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: toml::de::Error,
    },
    /// An environment variable is not a TOML value.
    #[error(
        "the environment variable {variable} has `{value}`, which is not a TOML value of the kind it needs"
    )]
    Variable {
        /// Its name.
        variable: String,
        /// Its value.
        value: String,
    },
    /// A key is unknown, or its value is of the wrong kind.
    #[error("the configuration{} is not valid", origin.as_ref().map(|path| format!(" ({}, or the environment)", path.display())).unwrap_or_default())]
    Invalid {
        /// The file, when there is one.
        origin: Option<PathBuf>,
        /// Which key, and what is wrong with it.
        #[source]
        source: toml::de::Error,
    },
    /// A value is out of its range.
    #[error("the configuration key `{key}` is {value}; it must be {expected}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is possible.
        expected: &'static str,
    },
}

impl Config {
    /// Reads `file` (none: only defaults) and the process's environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config = Self::load_with(file, |name| std::env::var(name).ok())?;
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        config.unknown_variables = names.filter(|name| is_unknown(name)).collect();
        Ok(config)
    }

    /// As [`Self::load`], with the environment given by `environment`.
    pub fn load_with(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut table = match file {
            None => Table::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                // The text itself is checked first, so that errors in it come with line and column.
                toml::from_str::<Self>(&text).map_err(|source| ConfigError::Invalid {
                    origin: Some(path.to_owned()),
                    source,
                })?;
                text.parse()
                    .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })?
            }
        };
        for (path, form) in KEYS {
            let variable = variable(path);
            if let Some(text) = environment(&variable) {
                insert(&mut table, path, value(&variable, text, *form)?);
            }
        }
        check_tables(&table, file)?;
        let config: Self = table
            .try_into()
            .map_err(|source| ConfigError::Invalid { origin: file.map(Path::to_owned), source })?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values that no daemon can work with.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |key, value: String, expected| Err(ConfigError::Range { key, value, expected });
        if !self.data_dir.is_absolute() {
            return range("data_dir", self.data_dir.display().to_string(), "an absolute path");
        }
        if let Some(socket) = self.socket.as_deref().filter(|path| !path.is_absolute()) {
            return range("socket", socket.display().to_string(), "an absolute path");
        }
        if let Some(bundle) = self.ca_bundle.as_deref().filter(|path| !path.is_file()) {
            return range("ca_bundle", bundle.display().to_string(), "a file that is there");
        }
        if self.pool_size > 256 {
            return range("pool_size", self.pool_size.to_string(), "at most 256");
        }
        self.check_drivers()?;
        let defaults = self.defaults;
        if defaults.vcpu == 0 {
            return range("defaults.vcpu", "0".to_owned(), "at least 1");
        }
        if defaults.memory_mib < crate::limits::MIN_MEMORY_MIB {
            return range("defaults.memory_mib", defaults.memory_mib.to_string(), "at least 16");
        }
        if defaults.pids < crate::limits::MIN_PIDS {
            return range("defaults.pids", defaults.pids.to_string(), "at least 8");
        }
        for (key, size) in
            [("defaults.disk_mib", defaults.disk_mib), ("build_disk_mib", self.build_disk_mib)]
        {
            if !(crate::limits::MIN_DISK_MIB..=crate::limits::MAX_DISK_MIB).contains(&size) {
                return range(key, size.to_string(), "between 32 and 1048576");
            }
        }
        Ok(())
    }
}

/// Refuses a table that is written as an array of its values, which the parser would take by position.
fn check_tables(table: &Table, file: Option<&Path>) -> Result<(), ConfigError> {
    let refuse = |key: String| ConfigError::Invalid {
        origin: file.map(Path::to_owned),
        source: serde::de::Error::custom(format!("`{key}` is an array; a table is expected")),
    };
    for key in ["defaults", "gc", "registries", "oci"] {
        if table.get(key).is_some_and(Value::is_array) {
            return Err(refuse(key.to_owned()));
        }
    }
    for (name, entry) in table.get("oci").and_then(Value::as_table).into_iter().flatten() {
        if entry.is_array() {
            return Err(refuse(format!("oci.{name}")));
        }
    }
    let credentials = table.get("registries").and_then(|registries| registries.get("credentials"));
    for (host, credential) in credentials.and_then(Value::as_table).into_iter().flatten() {
        if credential.is_array() {
            return Err(refuse(format!("registries.credentials.{host}")));
        }
    }
    let catalog = table.get("catalog").and_then(Value::as_table).into_iter().flatten();
    for (name, sources) in catalog {
        for source in sources.as_array().into_iter().flatten() {
            let bodies = source.as_table().into_iter().flatten();
            if let Some((kind, _)) = bodies.into_iter().find(|(_, body)| body.is_array()) {
                return Err(refuse(format!("catalog.{name}.{kind}")));
            }
        }
    }
    Ok(())
}

fn value(variable: &str, text: String, form: Form) -> Result<Value, ConfigError> {
    match form {
        Form::Text => Ok(Value::String(text)),
        Form::Toml => format!("value = {text}")
            .parse::<Table>()
            .ok()
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("value"))
            .ok_or_else(|| ConfigError::Variable { variable: variable.to_owned(), value: text }),
    }
}

fn insert(table: &mut Table, path: &[&str], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert((*key).to_owned(), value);
        }
        [key, rest @ ..] => {
            let inner = table.entry(*key).or_insert_with(|| Value::Table(Table::new()));
            // The file was checked before, so what is at an inner key is a table.
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogFormat;
    use super::*;
    use crate::problem::chain;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kiln.toml");
        std::fs::write(&file, text).unwrap();
        Config::load_with(Some(&file), |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
        .map_err(|error| chain(&error))
    }

    #[test]
    fn later_sources_win() {
        let config = load(
            "listen = \"127.0.0.1:1\"\npool_size = 7\n[defaults]\nvcpu = 3\nmemory_mib = 100\n",
            &[
                ("KILN_LISTEN", "127.0.0.1:2"),
                ("KILN_DEFAULTS_VCPU", "4"),
                ("KILN_LOG_FORMAT", "json"),
            ],
        )
        .unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!((config.pool_size, config.log_format), (7, LogFormat::Json));
        let defaults = config.defaults;
        assert_eq!((defaults.vcpu, defaults.memory_mib, defaults.pids), (4, 100, 4096));
        assert_eq!(config.socket_path(), Path::new("/var/lib/kiln/kiln.sock"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, environment, expected) in [
            ("lissen = 1", &[][..], "lissen"),
            ("[defaults]\ncpu = 1", &[], "cpu"),
            ("listen = \"nowhere\"", &[], "line 1"),
            ("listen = ", &[], "line 1"),
            ("", &[("KILN_POOL_SIZE", "many")], "KILN_POOL_SIZE"),
            ("", &[("KILN_POOL_SIZE", "1\nx = 2")], "KILN_POOL_SIZE"),
            ("", &[("KILN_LISTEN", "nowhere")], "listen"),
            ("defaults = [1, 64, 64]", &[], "`defaults` is an array"),
            ("registries = []", &[], "`registries` is an array"),
            ("", &[("KILN_REGISTRIES", "[]")], "`registries` is an array"),
            (
                "[registries.credentials]\n\"a.test\" = [\"u\", \"p\"]",
                &[],
                "`registries.credentials.a.test` is an array",
            ),
            ("pool_size = 1\npool_size = 2", &[], "duplicate key"),
            ("data_dir = \"here\"", &[], "`data_dir` is here; it must be an absolute path"),
            ("[defaults]\nvcpu = 0", &[], "`defaults.vcpu` is 0"),
            ("", &[("KILN_DEFAULTS_MEMORY_MIB", "1")], "`defaults.memory_mib` is 1"),
            ("", &[("KILN_DEFAULTS_DISK_MIB", "1")], "`defaults.disk_mib` is 1"),
            ("build_disk_mib = 2000000", &[], "`build_disk_mib` is 2000000"),
            ("", &[("KILN_UPPERS", "floppy")], "floppy"),
        ] {
            let error = load(text, environment).unwrap_err();
            assert!(error.contains(expected), "{text} {environment:?}: {error}");
        }
    }

    #[test]
    fn misspelt_variables_are_noticed() {
        for (name, unknown) in [
            ("KILN_POOLSIZE", true),
            ("KILN_POOL_SIZE", false),
            ("KILN_DEFAULTS_VCPU", false),
            ("KILN_HOST", false),
            ("KILNX", false),
            ("PATH", false),
        ] {
            assert_eq!(is_unknown(name), unknown, "{name}");
        }
    }

    #[test]
    fn every_key_has_a_variable_and_a_line_in_the_reference() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let docs = std::fs::read_to_string(docs).unwrap();
        // Debug output names each field of the structures; nested tables end with their own entry.
        let fields = format!("{:#?}", Config::default());
        for line in
            fields.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     "))
        {
            let Some((field, _)) = line.trim().split_once(':') else { continue };
            if field == "unknown_variables" {
                continue;
            }
            assert!(KEYS.iter().any(|(path, _)| path[0] == field), "`{field}` has no variable");
            assert!(docs.contains(&format!("`{field}")), "`{field}` is not in the reference");
        }
        for (path, _) in KEYS {
            assert!(docs.contains(&variable(path)), "{} is not in the reference", variable(path));
        }
    }
}
