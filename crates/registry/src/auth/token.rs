//! Bearer tokens (distribution project, "Token Authentication Specification").

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};

use super::{basic, foreign_realm, may_have};
use crate::client::{Inner, Report};
use crate::endpoint::{Endpoint, authority};
use crate::error::{Asked, RegistryError};
use crate::retry::{Attempts, is_temporary, retry_after};

/// The largest answer of a token endpoint that is read, in bytes.
const LIMIT: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Inner {
    /// Gets a token for an endpoint's repository, with its credentials if there are any.
    pub(super) async fn token(
        &self,
        endpoint: &Endpoint,
        asked: &Asked,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        report: Report<'_>,
    ) -> Result<HeaderValue, RegistryError> {
        let failed = |realm: &str, problem: String| RegistryError::Token {
            asked: Box::new(asked.clone()),
            realm: realm.chars().take(200).collect::<String>().escape_debug().to_string(),
            problem,
        };
        let mut url = Url::parse(realm)
            .map_err(|error| failed(realm, format!("its address is not one: {error}")))?;
        let host = authority(&url);
        if !self.may_speak_to(&url) {
            let problem = "it does not use TLS, and is not in `plain_http`".to_owned();
            return Err(failed(&host, problem));
        }
        let credential = self.credentials.get(&endpoint.key);
        if credential.is_some_and(|credential| !may_have(credential, endpoint, &url)) {
            return Err(failed(&host, foreign_realm(endpoint, &url)));
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", scope);
        }
        let secret = credential.map(basic);
        let mut attempts = Attempts::new(&self.config, endpoint.last);
        let response = loop {
            let (url, secret) = (url.clone(), secret.as_ref());
            let response = self.follow(asked, Method::GET, url, &HeaderMap::new(), secret).await?;
            let status = response.status();
            if status.is_success() {
                break response;
            }
            let problem = match (status.as_u16(), credential) {
                (401 | 403, Some(credential)) => {
                    format!("the credentials of user `{}` were not accepted", credential.username)
                }
                (401 | 403, None) => format!("no credentials are configured for {}", endpoint.key),
                _ => format!("status {status}"),
            };
            let error = failed(&host, problem);
            if !is_temporary(status) {
                return Err(error);
            }
            let wanted = retry_after(response.headers(), Timestamp::now());
            self.pause(error, wanted, &mut attempts, report).await?;
        };
        let body = self.read_body(response, LIMIT, asked).await.map_err(|error| match error {
            RegistryError::TooLarge { .. } => failed(&host, "its answer is too large".into()),
            error => error,
        })?;
        let token = kiln_types::json::from_slice::<Answer>(&body)
            .ok()
            .and_then(|answer| answer.token.or(answer.access_token))
            .filter(|token| !token.is_empty())
            .ok_or_else(|| failed(&host, "its answer has no token".into()))?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| failed(&host, "its token has characters that no token has".into()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}
