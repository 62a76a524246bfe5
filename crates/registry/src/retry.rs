//! When a request is made again, and after which pause.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::config::RegistryConfig;

/// The longest pause that is taken without being asked to.
const LONGEST: Duration = Duration::from_secs(10);

/// How many attempts are left.
#[derive(Debug)]
pub(crate) struct Attempts {
    made: u32,
    allowed: u32,
    backoff: Duration,
}

impl Attempts {
    /// A source that is not the last one gets only a second chance.
    pub(crate) fn new(config: &RegistryConfig, last: bool) -> Self {
        let allowed = if last { config.attempts } else { config.attempts.min(2) };
        Self { made: 0, allowed: allowed.max(1), backoff: Duration::from_millis(config.backoff_ms) }
    }

    /// Counts a failed attempt; the pause before the next one, if there is one.
    pub(crate) fn failed(&mut self) -> Option<Duration> {
        self.made += 1;
        (self.made < self.allowed)
            .then(|| self.backoff.saturating_mul(1 << (self.made - 1).min(16)).min(LONGEST))
    }

    /// Forgets failures because there was progress.
    pub(crate) fn reset(&mut self) {
        self.made = 0;
    }
}

/// Whether a status is worth another attempt.
pub(crate) fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// The pause that a server asks for: seconds or a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let seconds = date.as_second() - now.as_second();
    Some(Duration::from_secs(seconds.max(0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let config = RegistryConfig { attempts: 8, backoff_ms: 500, ..RegistryConfig::default() };
        let mut attempts = Attempts::new(&config, true);
        let pauses: Vec<_> =
            std::iter::from_fn(|| attempts.failed()).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        attempts.reset();
        assert_eq!(attempts.failed(), Some(Duration::from_millis(500)));
        let mut mirror = Attempts::new(&config, false);
        assert!(mirror.failed().is_some() && mirror.failed().is_none());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:30Z".parse().unwrap();
        for (value, expected) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            let found = retry_after(&headers, now).map(|pause| pause.as_secs());
            assert_eq!(found, expected, "{value}");
        }
    }
}
