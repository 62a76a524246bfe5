//! Whose secrets there are.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use crate::config::{Credential, RegistryConfig};
use crate::error::RegistryError;

/// The largest Docker configuration that is read, in bytes.
const LIMIT: u64 = 4 << 20;

/// Credentials by host.
#[derive(Debug, Default)]
pub(crate) struct Credentials(HashMap<String, Credential>);

impl Credentials {
    /// Those of the configuration, and those of the Docker configuration that it names.
    pub(crate) fn load(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let mut all = match &config.docker_config {
            Some(path) => docker_config(path)?,
            None => HashMap::new(),
        };
        for (host, credential) in &config.credentials {
            if credential.username.contains(':') {
                return Err(RegistryError::Config {
                    field: "credentials",
                    value: host.clone(),
                    problem: "a user name cannot contain a colon",
                });
            }
            all.insert(canonical(host), credential.clone());
        }
        Ok(Self(all))
    }

    pub(crate) fn get(&self, host: &str) -> Option<&Credential> {
        self.0.get(host)
    }
}

/// Docker writes hosts as addresses, and its own registry under an old one.
fn canonical(host: &str) -> String {
    let host =
        host.strip_prefix("https://").or_else(|| host.strip_prefix("http://")).unwrap_or(host);
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct DockerConfig {
    auths: BTreeMap<String, DockerAuth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

fn docker_config(path: &Path) -> Result<HashMap<String, Credential>, RegistryError> {
    let failed = |source| RegistryError::DockerConfig { path: path.to_owned(), source };
    let invalid =
        |problem: String| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, problem));
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > LIMIT {
        return Err(invalid(format!("it has {size} bytes, more than {LIMIT}")));
    }
    let text = std::fs::read(path).map_err(failed)?;
    let config: DockerConfig =
        serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    if config.creds_store.is_some() || !config.cred_helpers.is_empty() {
        tracing::warn!(path = %path.display(), "credential helpers are not run; only `auths` is read");
    }
    let mut all = HashMap::new();
    for (host, auth) in config.auths {
        if auth.identitytoken.is_some() {
            tracing::warn!(host, "an identity token of the Docker configuration is not used");
        }
        let credential = match (auth.username, auth.password, auth.auth) {
            (Some(username), Some(password), _) => Some((username, password)),
            (_, _, Some(auth)) if !auth.is_empty() => Some(decode(&auth).ok_or_else(|| {
                invalid(format!("`auths.{host}.auth` is not base64 of `user:password`"))
            })?),
            _ => None,
        };
        if let Some((username, password)) = credential {
            let credential = Credential { username, password, token_hosts: Vec::new() };
            all.insert(canonical(&host), credential);
        }
    }
    Ok(all)
}

fn decode(auth: &str) -> Option<(String, String)> {
    let bytes = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_configurations_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let config =
                RegistryConfig { docker_config: Some(path.clone()), ..RegistryConfig::default() };
            Credentials::load(&config)
        };
        let found = load(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YWxpY2U6c2VjOnJldA=="},
                "r.test:5000":{"username":"bob","password":"p"},"empty.test":{}},
               "credsStore":"x","HttpHeaders":{"a":"b"}}"#,
        )
        .unwrap();
        let pair = |host: &str| {
            found.get(host).map(|found| (found.username.clone(), found.password.clone()))
        };
        assert_eq!(pair("docker.io"), Some(("alice".into(), "sec:ret".into())));
        assert_eq!(pair("r.test:5000"), Some(("bob".into(), "p".into())));
        assert_eq!((pair("empty.test"), pair("r.test")), (None, None));
        assert!(!format!("{found:?}").contains("sec:ret"));
        for bad in ["{", r#"{"auths":{"a":{"auth":"%%"}}}"#] {
            let error = load(bad).unwrap_err();
            assert!(error.to_string().contains("config.json"), "{error}");
        }
    }
}
