//! Credentials and tokens: who gets which, and that nobody else does.

mod challenge;
mod token;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};

use crate::client::{Inner, Report};
use crate::config::Credential;
use crate::endpoint::{Endpoint, authority, is_host};
use crate::error::{Asked, RegistryError};

use challenge::Challenge;

/// What an `Authorization` header is kept under: the host and the repository that it is for.
pub(crate) type AuthKey = (String, String);

impl Inner {
    pub(crate) fn auth_key(endpoint: &Endpoint) -> AuthKey {
        (endpoint.base().origin().ascii_serialization(), endpoint.repository.clone())
    }

    /// Answers a 401 of the endpoint's own host: the header to try next.
    pub(crate) async fn authorize(
        &self,
        endpoint: &Endpoint,
        asked: &Asked,
        headers: &HeaderMap,
        report: Report<'_>,
    ) -> Result<HeaderValue, RegistryError> {
        let credential = self.credentials.get(&endpoint.key);
        let challenges = challenge::parse(headers);
        for challenge in &challenges {
            match (challenge, credential) {
                (Challenge::Bearer { realm, service, scope }, _) => {
                    let scope = scope
                        .clone()
                        .unwrap_or_else(|| format!("repository:{}:pull", endpoint.repository));
                    return self
                        .token(endpoint, asked, realm, service.as_deref(), &scope, report)
                        .await;
                }
                (Challenge::Basic, Some(credential)) => return Ok(basic(credential)),
                (Challenge::Basic, None) => {}
            }
        }
        let problem = match (credential, challenges.is_empty()) {
            (_, true) => "it names neither Basic nor Bearer authentication".to_owned(),
            _ => missing(endpoint),
        };
        Err(RegistryError::Denied { asked: Box::new(asked.clone()), status: 401, problem })
    }

    /// The problem that a 401 or 403 is reported with.
    pub(crate) fn denied(&self, endpoint: &Endpoint) -> String {
        match self.credentials.get(&endpoint.key) {
            Some(credential) => format!(
                "the credentials of user `{}` for {} were not accepted, or do not reach this repository",
                credential.username, endpoint.key
            ),
            None => missing(endpoint),
        }
    }
}

fn missing(endpoint: &Endpoint) -> String {
    format!(
        "no credentials are configured for {} (the repository is private, or does not exist)",
        endpoint.key
    )
}

/// The Basic scheme (RFC 7617).
fn basic(credential: &Credential) -> HeaderValue {
    let pair = STANDARD.encode(format!("{}:{}", credential.username, credential.password));
    let mut value = HeaderValue::try_from(format!("Basic {pair}")).expect("base64 is ASCII");
    value.set_sensitive(true);
    value
}

/// Whether a token endpoint may get the credentials of a registry: when it is the same host, a host
/// of the same domain by TLS, or one that the configuration names.
fn may_have(credential: &Credential, endpoint: &Endpoint, realm: &Url) -> bool {
    let registry = endpoint.base();
    if registry.origin() == realm.origin() {
        return true;
    }
    if credential.token_hosts.iter().any(|host| is_host(host, realm)) {
        return true;
    }
    let tls = |url: &Url| url.scheme() == "https" && url.port().is_none();
    let (Some(a), Some(b)) = (registry.domain(), realm.domain()) else {
        return false;
    };
    let within = |inner: &str, outer: &str| {
        outer.contains('.')
            && inner.strip_suffix(outer).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let hub = a == "registry-1.docker.io" && b == "auth.docker.io";
    tls(registry) && tls(realm) && (hub || within(a, b) || within(b, a))
}

/// The error for a token endpoint that must not get the credentials.
fn foreign_realm(endpoint: &Endpoint, realm: &Url) -> String {
    let realm = authority(realm);
    format!(
        "it is another host than the registry, and credentials go only to the host they are for; if {realm} \
         is trusted, add it to `token_hosts` of the credentials of {}",
        endpoint.key
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RegistryConfig;

    #[test]
    fn credentials_stay_with_their_domain() {
        let config = RegistryConfig {
            plain_http: vec!["10.0.0.1:5000".into()],
            ..RegistryConfig::default()
        };
        let credential = Credential {
            username: "u".into(),
            password: "p".into(),
            token_hosts: vec!["tokens.test".into()],
        };
        for (registry, realm, expected) in [
            ("docker.io/library/x", "https://auth.docker.io/token", true),
            ("docker.io/library/x", "https://auth.docker.io.evil.test/token", false),
            ("docker.io/library/x", "https://evildocker.io/token", false),
            ("registry.git.test/x", "https://git.test/jwt", true),
            ("registry.git.test/x", "https://other.git.test/jwt", false),
            ("registry.git.test/x", "https://test/jwt", false),
            ("registry.git.test/x", "http://git.test/jwt", false),
            ("registry.git.test/x", "https://tokens.test/t", true),
            ("registry.git.test/x", "https://tokens.test:8443/t", false),
            ("a.test/x", "https://auth.a.test/t", true),
            ("10.0.0.1:5000/x", "http://10.0.0.1:5000/t", true),
            ("10.0.0.1:5000/x", "http://10.0.0.1:5001/t", false),
        ] {
            let reference = registry.parse().unwrap();
            let endpoint = Endpoint::all(&config, &reference).unwrap().remove(0);
            let realm = Url::parse(realm).unwrap();
            assert_eq!(may_have(&credential, &endpoint, &realm), expected, "{registry} {realm}");
        }
    }
}
