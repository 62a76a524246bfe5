//! File steps and paths.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kiln_types::FileStep;

use crate::FieldError;

/// The most bytes that one file step may write.
const MAX_FILE: usize = 32 << 20;
/// `PATH_MAX` without its NUL, and `NAME_MAX`.
const LONGEST_PATH: usize = 4095;
const LONGEST_NAME: usize = 255;

/// What is mounted over when a sandbox runs, and so cannot be a part of an image.
const MOUNTED: &[&str] = &["/dev", "/proc", "/sys", "/run/kiln"];
const MOUNTED_FILES: &[&str] =
    &["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/sbin/agent", "/usr/sbin/agent"];

pub(super) fn check(step: &FileStep) -> Result<(), FieldError> {
    check_path("path", &step.path)?;
    if step.path.ends_with('/') {
        return Err(FieldError::new("path", &step.path, "names a directory")
            .hint("name a file; directories above it are made"));
    }
    if MOUNTED_FILES.contains(&step.path.as_str()) {
        return Err(FieldError::new("path", &step.path, "is provided by the runtime")
            .hint("its content is made when a sandbox starts and is no part of an image"));
    }
    if step.mode > 0o7777 {
        return Err(FieldError::new("mode", &format!("{:o}", step.mode), "is not a mode").hint(
            "permission bits are a number up to 4095 (octal 7777); octal 644 is written 420 in JSON",
        ));
    }
    let content = BASE64_STANDARD.decode(&step.content_base64).map_err(|error| {
        FieldError::new("content_base64", "", format!("is not standard base64: {error}"))
            .hint("use the alphabet with `+` and `/`, with padding and without line breaks")
    })?;
    if content.len() > MAX_FILE {
        return Err(FieldError::new(
            "content_base64",
            "",
            format!("holds {} bytes, more than {MAX_FILE}", content.len()),
        )
        .hint("fetch large data in a run step"));
    }
    Ok(())
}

/// Checks an absolute path that is made or written in the image.
pub(super) fn check_path(field: &str, path: &str) -> Result<(), FieldError> {
    let error = |problem: &str| FieldError::new(field, path, problem);
    if !path.starts_with('/') {
        return Err(error("is not an absolute path").hint(format!("write `/{path}`")));
    }
    if path.contains('\0') {
        return Err(error("has a NUL character"));
    }
    if path.len() > LONGEST_PATH || path.split('/').any(|name| name.len() > LONGEST_NAME) {
        return Err(error("is too long").hint(format!(
            "a path has at most {LONGEST_PATH} bytes, each name in it {LONGEST_NAME}"
        )));
    }
    if path.split('/').any(|name| name == "." || name == "..") {
        return Err(error("has a `.` or `..` component").hint("write the path without it"));
    }
    let below = |top: &str| {
        path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if let Some(top) = MOUNTED.iter().find(|top| below(top)) {
        return Err(error("is provided by the runtime")
            .hint(format!("what is below {top} exists only while a sandbox runs")));
    }
    Ok(())
}
