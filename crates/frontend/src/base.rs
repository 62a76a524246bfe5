//! Base images, as users write them in one text.

use kiln_types::reference::ParseReferenceError;
use kiln_types::{Base, Digest, ImageName, Reference};

use crate::FieldError;

/// The names of the catalog.
pub const CATALOG: &[&str] = &["debian-12"];

/// Reads a base image text:
///
/// * a name of the catalog: `debian-12`;
/// * an absolute path: a root directory or a tarball of one;
/// * `image:` and the name or the digest of an image of the store;
/// * everything else: an OCI reference, completed as Docker does it.
///
/// `field` is what errors call the text.
pub fn parse(field: &str, text: &str) -> Result<Base, FieldError> {
    if CATALOG.contains(&text) {
        return Ok(Base::Catalog(text.to_owned()));
    }
    let base = if text.starts_with('/') {
        Base::Rootfs(text.to_owned())
    } else if text == "." || text == ".." || text.starts_with("./") || text.starts_with("../") {
        return Err(FieldError::new(
            field,
            text,
            "is a relative path, which the daemon cannot know",
        )
        .hint("give the absolute path of the rootfs directory or tarball"));
    } else if let Some(image) = text.strip_prefix("image:") {
        Base::Image(image.to_owned())
    } else {
        Base::Reference(text.to_owned())
    };
    check(field, &base)?;
    Ok(match base {
        // The full form, so that equal bases look equal.
        Base::Reference(text) => {
            text.parse().map_or(Base::Reference(text), |reference: Reference| {
                Base::Reference(reference.to_string())
            })
        }
        other => other,
    })
}

/// Checks a base of a definition.
pub(crate) fn check(field: &str, base: &Base) -> Result<(), FieldError> {
    match base {
        Base::Catalog(name) => {
            if CATALOG.contains(&name.as_str()) {
                return Ok(());
            }
            Err(FieldError::new(field, name, "is not a name of the catalog").hint(format!(
                "use one of {}, or a reference to an image of a registry",
                CATALOG.join(", ")
            )))
        }
        Base::Reference(text) => match text.parse::<Reference>() {
            Ok(_) => Ok(()),
            Err(error) => {
                let problem = reason(&error.to_string());
                Err(FieldError::new(field, text, format!("is not a base image: {problem}")).hint(
                    format!(
                        "use a name of the catalog ({}), an OCI reference such as docker.io/library/debian:bookworm-slim, an absolute path, or image:NAME",
                        CATALOG.join(", ")
                    ),
                ))
            }
        },
        Base::Rootfs(path) => {
            if !path.starts_with('/') {
                return Err(FieldError::new(field, path, "is not an absolute path")
                    .hint("give the absolute path of the rootfs directory or tarball"));
            }
            if path.contains('\0') {
                return Err(FieldError::new(field, path, "has a NUL character"));
            }
            Ok(())
        }
        Base::Image(text) => {
            let prefix = text.len() >= 12
                && text.len() <= 64
                && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if prefix || text.parse::<Digest>().is_ok() {
                return Ok(());
            }
            match text.parse::<ImageName>() {
                Ok(_) => Ok(()),
                Err(error) => Err(FieldError::new(
                    field,
                    text,
                    format!("is not the name of an image: {}", reason(&error.to_string())),
                )),
            }
        }
    }
}

/// Reads the name that an image is to get. `field` is what errors call it.
pub fn image_name(field: &str, text: &str) -> Result<ImageName, FieldError> {
    text.parse().map_err(|error: ParseReferenceError| {
        let problem = format!("is not an image name: {}", reason(&error.to_string()));
        FieldError::new(field, text, problem)
            .hint("use lower-case letters, digits and dashes, optionally with `:tag`")
    })
}

/// The part of a parse error after the value, which the field error shows itself.
fn reason(error: &str) -> String {
    error
        .rsplit_once("`: ")
        .or_else(|| error.split_once(": "))
        .map_or(error, |(_, reason)| reason)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_bases() {
        let digest = Digest::of("x").to_string();
        for (text, base) in [
            ("debian-12", Base::Catalog("debian-12".into())),
            ("debian:12", Base::Reference("docker.io/library/debian:12".into())),
            ("127.0.0.1:5000/a", Base::Reference("127.0.0.1:5000/a:latest".into())),
            ("debian-13", Base::Reference("docker.io/library/debian-13:latest".into())),
            ("/srv/root.tar.gz", Base::Rootfs("/srv/root.tar.gz".into())),
            ("image:python-ml", Base::Image("python-ml".into())),
            ("image:python-ml:v2", Base::Image("python-ml:v2".into())),
            (&format!("image:{digest}"), Base::Image(digest.clone())),
            ("image:0123456789ab", Base::Image("0123456789ab".into())),
        ] {
            assert_eq!(parse("base_image", text), Ok(base), "{text}");
        }
    }

    #[test]
    fn bad_bases_name_field_and_value() {
        for (text, problem) in [
            ("", "it is empty"),
            ("./root", "relative path"),
            ("../root.tar", "relative path"),
            ("Debian", "upper-case"),
            ("a b", "character"),
            ("image:", "it is empty"),
            ("image:A", "upper-case"),
            ("/a\0b", "NUL"),
            ("debian:12\n", "tag"),
        ] {
            let error = parse("base_image", text).unwrap_err().to_string();
            assert!(error.starts_with("base_image"), "{error}");
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }
}
