//! The environment variables. A test holds this table against the fields of [`super::Config`].

/// How the text of a variable becomes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The text is the value.
    Text,
    /// The text is a TOML value: a number, or a table in braces.
    Toml,
}

/// A key of the configuration, as path, and the form of its environment variable.
pub(super) const KEYS: &[(&[&str], Form)] = &[
    (&["data_dir"], Form::Text),
    (&["listen"], Form::Text),
    (&["socket"], Form::Text),
    (&["log_format"], Form::Text),
    (&["stop_grace_ms"], Form::Toml),
    (&["drain_ms"], Form::Toml),
    (&["layers"], Form::Text),
    (&["pool_size"], Form::Toml),
    (&["defaults", "vcpu"], Form::Toml),
    (&["defaults", "memory_mib"], Form::Toml),
    (&["defaults", "pids"], Form::Toml),
    (&["defaults", "disk_mib"], Form::Toml),
    (&["uppers"], Form::Text),
    (&["build_disk_mib"], Form::Toml),
    (&["gc", "keep_hours"], Form::Toml),
    (&["gc", "keep_builds"], Form::Toml),
    (&["gc", "keep_build_days"], Form::Toml),
    (&["driver"], Form::Text),
    (&["oci"], Form::Toml),
    (&["registries"], Form::Toml),
    (&["catalog"], Form::Toml),
    (&["ca_bundle"], Form::Text),
];

/// Variables with the same prefix that others read.
const OTHERS: &[&str] = &[
    "KILN_HOST",
    "KILN_API_KEY",
    "KILN_LOG",
    "KILN_BLESS",
    "KILN_AGENT_BINARY",
    "KILN_FAIL_POINT",
    "KILN_FAIL_POINT_FILE",
];

/// Whether `name` looks like the variable of a key and is none.
pub(super) fn is_unknown(name: &str) -> bool {
    name.starts_with("KILN_")
        && !OTHERS.contains(&name)
        && !name.starts_with("KILN_TEST")
        && KEYS.iter().all(|(path, _)| variable(path) != name)
}

/// `KILN_DEFAULTS_VCPU` for `defaults.vcpu`.
pub(super) fn variable(path: &[&str]) -> String {
    format!("KILN_{}", path.join("_").to_uppercase())
}
