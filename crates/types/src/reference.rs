//! OCI references to images in registries, and the names of images in the local store.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::printable::Printable;

/// Why a text is not a reference or a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{}` is not {what}: {}", Printable(value), Printable(reason))]
pub struct ParseReferenceError {
    value: String,
    what: &'static str,
    reason: String,
}

/// A normalised OCI reference: `registry/repository[:tag][@digest]`.
///
/// Short forms are completed as Docker does it: `debian` is `docker.io/library/debian:latest`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and optional port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if any. At least one of tag and digest is there.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference is pinned.
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let fail = |reason: String| ParseReferenceError {
            value: value.chars().take(200).collect(),
            what: "an image reference",
            reason,
        };
        if value.is_empty() {
            return Err(fail("it is empty".into()));
        }
        let (rest, digest) = match value.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse::<Digest>().map_err(|error| fail(error.to_string()))?))
            }
            None => (value, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
                (first.to_owned(), path)
            }
            _ => ("docker.io".to_owned(), rest),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag.to_owned())),
            None => (rest, None),
        };
        if let Some(tag) = &tag {
            check_tag(tag).map_err(fail)?;
        }
        check_registry(&registry).map_err(fail)?;
        let repository = if registry == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        check_path(&repository).map_err(fail)?;
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry, repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of an image in the local store: `path[:tag]`, tag `latest` when absent.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    path: String,
    tag: String,
}

impl ImageName {
    /// The part before the tag.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl FromStr for ImageName {
    type Err = ParseReferenceError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let fail = |reason: String| ParseReferenceError {
            value: value.chars().take(200).collect(),
            what: "an image name",
            reason,
        };
        if value.is_empty() {
            return Err(fail("it is empty".into()));
        }
        // A colon before the last slash belongs to a registry's port, not to a tag.
        let (path, tag) = match value.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, tag),
            _ => (value, "latest"),
        };
        check_tag(tag).map_err(fail)?;
        match path.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) => {
                check_registry(host).map_err(fail)?;
                check_path(rest).map_err(fail)?;
            }
            _ => check_path(path).map_err(fail)?,
        }
        Ok(Self { path: path.to_owned(), tag: tag.to_owned() })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.tag)
    }
}

impl fmt::Debug for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn check_registry(registry: &str) -> Result<(), String> {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let host_ok = !host.is_empty()
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
    if !host_ok {
        return Err(format!("`{registry}` is not a registry host"));
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() => Err(format!("`{port}` is not a port")),
        _ => Ok(()),
    }
}

/// Components of lower-case letters and digits, joined by `.`, `_`, `__` or dashes, separated by `/`.
fn check_path(path: &str) -> Result<(), String> {
    if path.len() > 255 {
        return Err("it is longer than 255 bytes".into());
    }
    for component in path.split('/') {
        let bytes = component.as_bytes();
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
            return Err("a path component is empty".into());
        };
        if component.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("`{component}` has upper-case letters; names are lower-case"));
        }
        if !alphanumeric(first) || !alphanumeric(last) {
            return Err(format!("`{component}` must begin and end with a letter or digit"));
        }
        let separators = |byte: u8| matches!(byte, b'.' | b'_' | b'-');
        if let Some(&byte) = bytes.iter().find(|&&byte| !alphanumeric(byte) && !separators(byte)) {
            return Err(format!("`{component}` has the character `{}`", byte.escape_ascii()));
        }
        let runs =
            component.split(|c: char| c.is_ascii_alphanumeric()).filter(|run| !run.is_empty());
        for run in runs {
            if !matches!(run, "." | "_" | "__") && run.bytes().any(|byte| byte != b'-') {
                return Err(format!("`{component}` has the separator `{run}`"));
            }
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let ok = !tag.is_empty()
        && tag.len() <= 128
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    if ok {
        Ok(())
    } else {
        Err(format!("`{tag}` is not a tag (letters, digits, `_`, `.`, `-`; at most 128)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_short_references() {
        let digest = Digest::of("x");
        for (given, full) in [
            ("debian", "docker.io/library/debian:latest".to_owned()),
            ("debian:12", "docker.io/library/debian:12".to_owned()),
            (
                "docker.io/library/debian:bookworm-slim",
                "docker.io/library/debian:bookworm-slim".into(),
            ),
            ("team/app", "docker.io/team/app:latest".to_owned()),
            ("localhost:5000/app:v1", "localhost:5000/app:v1".to_owned()),
            ("127.0.0.1:5000/a/b_c/d--e", "127.0.0.1:5000/a/b_c/d--e:latest".to_owned()),
        ] {
            assert_eq!(given.parse::<Reference>().unwrap().to_string(), full, "{given}");
        }
        let pinned = format!("ghcr.io/o/app@{digest}");
        let reference: Reference = pinned.parse().unwrap();
        assert_eq!((reference.tag(), reference.digest()), (None, Some(&digest)));
        assert_eq!(reference.to_string(), pinned);
    }

    #[test]
    fn refuse_bad_references() {
        for given in [
            "",
            "/",
            "a//b",
            "Debian",
            "debian:",
            "debian:a b",
            "a/../b",
            "-a",
            "a..b",
            "a___b",
            "host.x:99999/a",
            "debian@sha256:00",
            "ho_st.x/a",
            "a b",
            "debian:12\n",
        ] {
            assert!(given.parse::<Reference>().is_err(), "{given:?}");
        }
    }

    #[test]
    fn image_names() {
        for (given, full) in [
            ("python-ml", "python-ml:latest"),
            ("python-ml:v1", "python-ml:v1"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("docker.io/library/debian:12", "docker.io/library/debian:12"),
        ] {
            assert_eq!(given.parse::<ImageName>().unwrap().to_string(), full, "{given}");
        }
        for given in ["", "Python", "a:b:c", "a b", "../x", "a@b"] {
            assert!(given.parse::<ImageName>().is_err(), "{given:?}");
        }
    }
}
