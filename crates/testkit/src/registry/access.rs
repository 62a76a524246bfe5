//! Who may read.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The access control of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// One user, by Basic authentication.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// Holders of a token. The token server issues one to the user, or to everybody when there is none.
    Bearer {
        /// The user and the password.
        user: Option<(String, String)>,
    },
}

impl Access {
    /// Basic authentication.
    pub fn basic(user: &str, password: &str) -> Self {
        Self::Basic { user: user.into(), password: password.into() }
    }

    /// Bearer authentication with a user.
    pub fn bearer(user: &str, password: &str) -> Self {
        Self::Bearer { user: Some((user.into(), password.into())) }
    }
}

/// Whether a request has these Basic credentials.
pub(super) fn is_basic(headers: &HeaderMap, user: &str, password: &str) -> bool {
    let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    authorization(headers).is_some_and(|given| given == expected)
}

pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())
}
