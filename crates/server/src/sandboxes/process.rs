//! What a process of a sandbox gets: environment, working directory, user.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_runtime::agent::ExecSpec;
use kiln_runtime::native::{CA_BUNDLE, CA_ENV};
use kiln_types::api::ExecRequest;
use kiln_types::definition::{DEFAULT_PATH, DEFAULT_WORKDIR};
use kiln_types::{ErrorCode, ImageConfig};

use crate::extract::shorten;
use crate::problem::ApiError;

/// What every process of one sandbox starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProcessDefaults {
    env: BTreeMap<String, String>,
    cwd: String,
    user: Option<String>,
}

impl ProcessDefaults {
    /// Later ones win: default `PATH`, the image, the host's CA bundle (with `ca_bundle`), the sandbox.
    pub(crate) fn new(
        image: &ImageConfig,
        sandbox: &BTreeMap<String, String>,
        ca_bundle: bool,
    ) -> Self {
        let mut env = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
        env.extend(image.env.clone());
        if ca_bundle {
            env.extend(CA_ENV.map(|name| (name.to_owned(), CA_BUNDLE.to_owned())));
        }
        env.extend(sandbox.clone());
        let cwd = image.workdir.clone().filter(|path| !path.is_empty());
        Self {
            env,
            cwd: cwd.unwrap_or_else(|| DEFAULT_WORKDIR.to_owned()),
            user: image.user.clone().filter(|user| !user.is_empty()),
        }
    }

    /// The environment, sorted by name.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        self.env.clone().into_iter().collect()
    }

    /// Where relative paths start.
    pub(crate) fn cwd(&self) -> &str {
        &self.cwd
    }

    /// What the agent is asked to run.
    pub(crate) fn spec(&self, request: &ExecRequest) -> Result<ExecSpec, ApiError> {
        check(request)?;
        let mut env = self.env.clone();
        env.extend(request.env.clone());
        let cwd = match request.cwd.as_deref() {
            None => self.cwd.clone(),
            Some(absolute) if absolute.starts_with('/') => absolute.to_owned(),
            Some(relative) => format!("{}/{relative}", self.cwd.trim_end_matches('/')),
        };
        Ok(ExecSpec {
            argv: request.argv.clone(),
            env: env.into_iter().collect(),
            cwd: Some(cwd),
            user: request.user.clone().or_else(|| self.user.clone()),
            pty: request.pty.map(|size| (size.rows, size.cols)),
            timeout: request.timeout_ms.map(Duration::from_millis),
        })
    }
}

fn check(request: &ExecRequest) -> Result<(), ApiError> {
    let invalid = |detail: String| Err(ApiError::new(ErrorCode::InvalidRequest, detail));
    if request.argv.first().is_none_or(String::is_empty) {
        return invalid("`argv` is empty; it must begin with a program".to_owned());
    }
    if request.argv.iter().any(|argument| argument.contains('\0')) {
        return invalid("`argv` has an element with a NUL character".to_owned());
    }
    for (field, value) in [("cwd", &request.cwd), ("user", &request.user)] {
        match value.as_deref() {
            Some("") => {
                return invalid(format!("`{field}` is empty; leave it out for the default"));
            }
            Some(text) if text.contains('\0') => {
                return invalid(format!("`{field}` has a NUL character"));
            }
            _ => {}
        }
    }
    if let Some(time) = request.timeout_ms.filter(|time| *time > i64::MAX as u64) {
        return invalid(format!("`timeout_ms` is {time}; it must be below 2^63"));
    }
    if request.timeout_ms == Some(0) {
        return invalid("`timeout_ms` is 0; leave it out for no time-out".to_owned());
    }
    check_env(&request.env)?;
    if !request.literal {
        kiln_frontend::argv::check(&request.argv).map_err(|error| {
            ApiError::new(
                ErrorCode::ShellOperatorInArgv,
                format!(
                    "`argv[{}]` is the shell operator `{}`, but an argv is run without a shell",
                    error.position, error.operator
                ),
            )
            .hint(error.hint())
        })?;
    }
    Ok(())
}

/// Refuses what cannot be an environment.
pub(crate) fn check_env(env: &BTreeMap<String, String>) -> Result<(), ApiError> {
    for (name, value) in env {
        let reason = if name.is_empty() {
            "has an empty name"
        } else if name.contains(['=', '\0']) {
            "has a name with `=` or a NUL character"
        } else if value.contains('\0') {
            "has a value with a NUL character"
        } else {
            continue;
        };
        let name = shorten(name);
        return Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!("`env` {reason}: `{}`", name.escape_debug()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn request(argv: &[&str]) -> ExecRequest {
        ExecRequest {
            argv: argv.iter().map(|&text| text.to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn later_environments_win() {
        let ca_name = CA_ENV[0];
        let image = ImageConfig {
            env: map(&[("A", "image"), ("B", "image"), ("C", "image"), (ca_name, "image")]),
            ..Default::default()
        };
        let defaults =
            ProcessDefaults::new(&image, &map(&[("B", "sandbox"), ("C", "sandbox")]), true);
        let mut exec = request(&["env"]);
        exec.env = map(&[("C", "request")]);
        let env: BTreeMap<_, _> = defaults.spec(&exec).unwrap().env.into_iter().collect();
        for (name, value) in [
            ("A", "image"),
            ("B", "sandbox"),
            ("C", "request"),
            ("PATH", DEFAULT_PATH),
            (ca_name, CA_BUNDLE),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn working_directory_and_user() {
        let image = ImageConfig {
            workdir: Some("/srv/".into()),
            user: Some("app".into()),
            ..Default::default()
        };
        for (config, cwd, expected) in [
            (&ImageConfig::default(), None, "/workspace"),
            (&image, None, "/srv/"),
            (&image, Some("sub"), "/srv/sub"),
            (&image, Some("/abs"), "/abs"),
        ] {
            let exec = ExecRequest { cwd: cwd.map(str::to_owned), ..request(&["true"]) };
            let spec = ProcessDefaults::new(config, &BTreeMap::new(), false).spec(&exec).unwrap();
            assert_eq!(spec.cwd.as_deref(), Some(expected));
        }
        let defaults = ProcessDefaults::new(&image, &BTreeMap::new(), false);
        assert_eq!(defaults.spec(&request(&["id"])).unwrap().user.as_deref(), Some("app"));
        let exec = ExecRequest { user: Some("0:0".into()), ..request(&["id"]) };
        assert_eq!(defaults.spec(&exec).unwrap().user.as_deref(), Some("0:0"));
    }

    #[test]
    fn bad_requests_are_refused_by_field() {
        let defaults = ProcessDefaults::new(&ImageConfig::default(), &BTreeMap::new(), false);
        for (exec, code, text) in [
            (request(&[]), ErrorCode::InvalidRequest, "`argv`"),
            (request(&["a\0b"]), ErrorCode::InvalidRequest, "NUL"),
            (
                ExecRequest { cwd: Some(String::new()), ..request(&["x"]) },
                ErrorCode::InvalidRequest,
                "`cwd`",
            ),
            (
                ExecRequest { timeout_ms: Some(0), ..request(&["x"]) },
                ErrorCode::InvalidRequest,
                "`timeout_ms`",
            ),
            (
                ExecRequest { env: map(&[("A=B", "")]), ..request(&["x"]) },
                ErrorCode::InvalidRequest,
                "A=B",
            ),
            (request(&["a", "&&", "b"]), ErrorCode::ShellOperatorInArgv, "&&"),
            (request(&["echo", "x", ">", "/f"]), ErrorCode::ShellOperatorInArgv, ">"),
        ] {
            let error = defaults.spec(&exec).unwrap_err().problem;
            assert_eq!(error.code, code, "{exec:?}");
            assert!(error.detail.contains(text), "{}", error.detail);
        }
        let literal = ExecRequest { literal: true, ..request(&["echo", "&&"]) };
        assert_eq!(defaults.spec(&literal).unwrap().argv, ["echo", "&&"]);
    }
}
