//! Package names, as the package managers take them.
//!
//! They reach the package manager as arguments, not through a shell, so nothing can be injected; what
//! is refused here would be taken for an option, or is a mistake that the manager's own message hides.

use crate::FieldError;

/// Whose packages they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packager {
    Apt,
    Pip,
    Npm,
}

const MOST: usize = 2000;
const LONGEST: usize = 1000;

pub(crate) fn check_packages(
    field: &str,
    packager: Packager,
    packages: &[String],
) -> Result<(), FieldError> {
    if packages.is_empty() {
        return Err(FieldError::new(field, "", "is empty")
            .hint("name at least one package, or leave the step out"));
    }
    if packages.len() > MOST {
        return Err(FieldError::new(field, "", format!("has {} elements", packages.len()))
            .hint(format!("at most {MOST} are possible in one step")));
    }
    for (number, package) in packages.iter().enumerate() {
        check_package(&format!("{field}[{number}]"), packager, package)?;
    }
    Ok(())
}

fn check_package(field: &str, packager: Packager, package: &str) -> Result<(), FieldError> {
    let error = |problem: &str| FieldError::new(field, package, problem);
    if package.is_empty() {
        return Err(error("is empty").hint("name a package"));
    }
    if package.starts_with('-') {
        return Err(error("begins with a dash and would be taken for an option")
            .hint("use a run step to pass options"));
    }
    if package.len() > LONGEST || package.chars().any(char::is_control) {
        return Err(error("is too long, or has a control character"));
    }
    let (fine, form) = match packager {
        Packager::Apt => (apt(package), "`name`, `name=version`, `name/release` or `name:arch`"),
        Packager::Pip => (pip(package), "one requirement, such as `numpy` or `numpy>=2,<3`"),
        Packager::Npm => (npm(package), "`name`, `@scope/name` or `name@version`"),
    };
    if fine {
        return Ok(());
    }
    let problem = if package.trim() != package || package.split_whitespace().count() > 1 {
        "has a space in it"
    } else {
        "is not a package name"
    };
    Err(error(problem).hint(format!("write each package as an element of its own: {form}")))
}

/// Debian Policy 5.6.1, 5.6.12; upper case is no part of a name.
fn apt(package: &str) -> bool {
    let (name, rest) = match package.find(['=', '/']) {
        Some(end) => (&package[..end], Some(&package[end + 1..])),
        None => (package, None),
    };
    let (name, architecture) = match name.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (name, None),
    };
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let name_fine = name.len() >= 2
        && word(name.as_bytes()[0])
        && name.bytes().all(|byte| word(byte) || b"+-.".contains(&byte))
        // apt-get takes a trailing `-` or `+` for "remove" or "install".
        && !name.ends_with('-');
    let architecture_fine = architecture.is_none_or(|architecture| {
        !architecture.is_empty() && architecture.bytes().all(|byte| word(byte) || byte == b'-')
    });
    let rest_fine = rest.is_none_or(|rest| {
        !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+~:-".contains(&byte))
    });
    name_fine && architecture_fine && rest_fine
}

/// PEP 508 in outline; pip itself has the last word.
fn pip(package: &str) -> bool {
    let first = package.as_bytes()[0];
    let allowed = |c: char| c.is_alphanumeric() || " ._-+[](),<>=!~@:/;'\"%#?&*^".contains(c);
    let starts = first.is_ascii_alphanumeric() || first == b'.' || first == b'/';
    if !starts || package.trim() != package || !package.chars().all(allowed) {
        return false;
    }
    // Spaces are fine around operators, but two names side by side are two packages.
    let mut after_name = false;
    for word in package.split_whitespace() {
        let operator =
            word.contains(['<', '>', '=', '!', '~', '@', ';', '[', '(', ',', ')', '\'', '"']);
        let joins = matches!(word, "and" | "or" | "in" | "not");
        if after_name && !operator && !joins {
            return false;
        }
        after_name = !operator && !joins;
    }
    !package.contains("&&") && !package.ends_with('&')
}

/// The forms of `npm install`: names, scopes, versions, tags, URLs.
fn npm(package: &str) -> bool {
    let first = package.as_bytes()[0];
    (first.is_ascii_alphanumeric() || matches!(first, b'@' | b'.' | b'/'))
        && package
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"@/._-+:~^#=*%?".contains(&byte))
}
