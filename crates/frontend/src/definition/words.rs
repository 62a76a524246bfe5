//! Words that become arguments, variables and user names of processes.

use std::collections::BTreeMap;

use crate::FieldError;

/// The kernel takes no longer argument or variable (`MAX_ARG_STRLEN`).
const LONGEST: usize = 128 * 1024 - 1;
/// And not more of them together, with room for the environment (a quarter of the usual stack limit).
const LONGEST_TOGETHER: usize = 1024 * 1024;
/// Ids of a sandbox end here.
const LAST_ID: u32 = 65_535;

pub(super) fn check_argv(field: &str, argv: &[String]) -> Result<(), FieldError> {
    match argv.first() {
        None => {
            return Err(FieldError::new(field, "", "is empty").hint("name at least a program"));
        }
        Some(program) if program.is_empty() => {
            return Err(FieldError::new(format!("{field}[0]"), "", "is empty")
                .hint("the first element is the program"));
        }
        Some(_) => {}
    }
    for (number, word) in argv.iter().enumerate() {
        check_word(&format!("{field}[{number}]"), word)?;
    }
    if argv.iter().map(|word| word.len() + 1).sum::<usize>() > LONGEST_TOGETHER {
        return Err(FieldError::new(field, "", format!("is longer than {LONGEST_TOGETHER} bytes"))
            .hint("put the data into a file step"));
    }
    Ok(())
}

pub(crate) fn check_shell(field: &str, command: &str) -> Result<(), FieldError> {
    if command.trim().is_empty() {
        return Err(FieldError::new(field, command, "is an empty command")
            .hint("write a shell command, or leave it out"));
    }
    check_word(field, command)
}

fn check_word(field: &str, word: &str) -> Result<(), FieldError> {
    if word.contains('\0') {
        return Err(FieldError::new(
            field,
            word,
            "has a NUL character, which no argument can hold",
        ));
    }
    if word.len() > LONGEST {
        return Err(FieldError::new(field, word, format!("is longer than {LONGEST} bytes"))
            .hint("put the data into a file step"));
    }
    Ok(())
}

pub(crate) fn check_env(field: &str, vars: &BTreeMap<String, String>) -> Result<(), FieldError> {
    for (name, value) in vars {
        let first = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
        let rest = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let bytes = name.as_bytes();
        if !bytes.first().is_some_and(first) || !bytes.iter().all(rest) {
            return Err(FieldError::new(field, name, "is not the name of a variable")
                .hint("begin with a letter or `_`; letters, digits, `_`, `-` and `.` may follow"));
        }
        if value.contains('\0') {
            return Err(FieldError::new(
                format!("{field}.{name}"),
                value,
                "has a NUL character, which no variable can hold",
            ));
        }
        if name.len() + value.len() + 1 > LONGEST {
            return Err(FieldError::new(
                format!("{field}.{name}"),
                value,
                format!("is longer than {LONGEST} bytes with its name"),
            )
            .hint("put the data into a file step"));
        }
    }
    let together: usize = vars.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if together > LONGEST_TOGETHER {
        return Err(FieldError::new(field, "", format!("is longer than {LONGEST_TOGETHER} bytes"))
            .hint("put the data into a file step"));
    }
    Ok(())
}

pub(super) fn check_user(field: &str, user: &str) -> Result<(), FieldError> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    for part in [Some(name), group].into_iter().flatten() {
        if let Some(problem) = bad_account(part) {
            return Err(FieldError::new(field, user, problem)
                .hint("write `name`, `uid`, `name:group` or `uid:gid`"));
        }
    }
    Ok(())
}

fn bad_account(part: &str) -> Option<String> {
    if part.is_empty() {
        return Some("is not a user".to_owned());
    }
    if part.bytes().all(|byte| byte.is_ascii_digit()) {
        let fits = part.parse::<u32>().is_ok_and(|id| id <= LAST_ID);
        return (!fits).then(|| format!("has an id above {LAST_ID}, which sandboxes do not have"));
    }
    let bytes = part.strip_suffix('$').unwrap_or(part).as_bytes();
    let first = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let rest = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let fine = bytes.first().is_some_and(first) && bytes.iter().all(rest) && bytes.len() <= 32;
    (!fine).then(|| "is not a user".to_owned())
}
