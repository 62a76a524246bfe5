//! The hosts that can be asked for a repository.

use kiln_types::Reference;
use reqwest::Url;

use crate::config::RegistryConfig;
use crate::error::{Asked, RegistryError};

/// Docker Hub's name in references, and the host that serves it.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// One host that may have a repository.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// `https://host[:port]/v2/<repository>/`.
    base: Url,
    /// What credentials are looked up by: the host as the configuration and references write it.
    pub(crate) key: String,
    /// The repository, as this host calls it.
    pub(crate) repository: String,
    /// Whether this is the last one, after which there is nobody to ask.
    pub(crate) last: bool,
}

impl Endpoint {
    /// The sources of a reference: mirrors in their order, then its registry.
    pub(crate) fn all(
        config: &RegistryConfig,
        reference: &Reference,
    ) -> Result<Vec<Self>, RegistryError> {
        let registry = reference.registry();
        let mut endpoints = Vec::new();
        for mirror in config.mirrors.get(registry).into_iter().flatten() {
            let (plain, rest) = match mirror.split_once("://") {
                Some(("http", rest)) => (true, rest),
                Some(("https", rest)) => (false, rest),
                Some(_) => return Err(bad_mirror(mirror)),
                None => (false, mirror.as_str()),
            };
            let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_matches('/');
            let repository = match prefix {
                "" => reference.repository().to_owned(),
                prefix => format!("{prefix}/{}", reference.repository()),
            };
            let plain = plain || config.plain_http.iter().any(|plain| plain == host);
            let base = base(host, plain, &repository).ok_or_else(|| bad_mirror(mirror))?;
            endpoints.push(Self { base, key: host.to_owned(), repository, last: false });
        }
        let host = if registry == HUB.0 { HUB.1 } else { registry };
        let plain = config.plain_http.iter().any(|plain| plain == registry);
        let base = base(host, plain, reference.repository()).ok_or(RegistryError::Config {
            field: "plain_http",
            value: host.to_owned(),
            problem: "it is not a host",
        })?;
        endpoints.push(Self {
            base,
            key: registry.to_owned(),
            repository: reference.repository().to_owned(),
            last: true,
        });
        Ok(endpoints)
    }

    /// The address of something in the repository: `manifests/12`, `blobs/sha256:…`.
    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        url
    }

    /// What is asked, for errors.
    #[expect(clippy::unnecessary_box_returns, reason = "errors hold it boxed, to be small")]
    pub(crate) fn asked(&self, what: impl Into<String>) -> Box<Asked> {
        Box::new(Asked {
            host: self.key.clone(),
            repository: self.repository.clone(),
            what: what.into(),
        })
    }

    /// Whether requests to `url` are requests to this host.
    pub(crate) fn is_at(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }

    /// The host, as it is in addresses.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }
}

fn base(host: &str, plain: bool, repository: &str) -> Option<Url> {
    let scheme = if plain { "http" } else { "https" };
    let url = Url::parse(&format!("{scheme}://{host}/v2/{repository}/")).ok()?;
    // Anything but a host and a port would end up in another part of the address.
    (authority(&url) == host || authority_with_port(&url) == host).then_some(url)
}

fn bad_mirror(mirror: &str) -> RegistryError {
    RegistryError::Config {
        field: "mirrors",
        value: mirror.to_owned(),
        problem: "a mirror is written as `[http://]host[:port][/prefix]`",
    }
}

/// `host[:port]`, the port only if it is not the scheme's own.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// `host:port`, always.
fn authority_with_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("{host}:{}", url.port_or_known_default().unwrap_or_default())
}

/// Whether `host` of the configuration is the host of `url`.
pub(crate) fn is_host(host: &str, url: &Url) -> bool {
    host == authority(url) || host == authority_with_port(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(mirrors: &[&str], plain: &[&str], reference: &str) -> Result<Vec<String>, String> {
        let reference: Reference = reference.parse().unwrap();
        let plain_http = plain.iter().map(ToString::to_string).collect();
        let mut config = RegistryConfig { plain_http, ..RegistryConfig::default() };
        let mirrors = mirrors.iter().map(ToString::to_string).collect();
        config.mirrors.insert(reference.registry().to_owned(), mirrors);
        let endpoints = Endpoint::all(&config, &reference).map_err(|error| error.to_string())?;
        Ok(endpoints.iter().map(|endpoint| endpoint.url("tags/list").to_string()).collect())
    }

    #[test]
    fn mirrors_come_before_the_registry() {
        let found = addresses(
            &["a.test", "http://b.test:5000/hub/", "c.test/x"],
            &["c.test", "docker.test"],
            "debian:12",
        );
        let expected = [
            "https://a.test/v2/library/debian/tags/list",
            "http://b.test:5000/v2/hub/library/debian/tags/list",
            "http://c.test/v2/x/library/debian/tags/list",
            "https://registry-1.docker.io/v2/library/debian/tags/list",
        ];
        assert_eq!(found.unwrap(), expected);
        let found = addresses(&[], &["127.0.0.1:5000"], "127.0.0.1:5000/a");
        assert_eq!(found.unwrap(), ["http://127.0.0.1:5000/v2/a/tags/list"]);
        let found = addresses(&[], &[], "127.0.0.1:5000/a");
        assert_eq!(found.unwrap(), ["https://127.0.0.1:5000/v2/a/tags/list"]);
    }

    #[test]
    fn strange_mirrors_are_refused() {
        for mirror in ["ftp://a", "user:pw@a.test", "a.test?x", "", "a b", "a.test#x"] {
            let error = addresses(&[mirror], &[], "debian").unwrap_err();
            assert!(error.contains("mirrors") && error.contains("[http://]host"), "{error}");
        }
    }
}
