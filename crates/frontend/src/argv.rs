//! Shell operators that were meant for a shell but stand in an argv.
//!
//! An argv is run without a shell, so `["a", "&&", "b"]` gives `a` the two arguments `&&` and `b`,
//! which is never what was meant. Such an argv is refused with the form that works.

use std::fmt;

/// Elements that mean something to a shell and, on their own, next to nothing to a program.
const OPERATORS: &[&str] = &[
    "&&", "||", "|", "|&", ";", "&", ">", ">>", ">|", "<", "<<", "<<<", "<>", "1>", "1>>", "2>",
    "2>>", "2>&1", "1>&2", ">&2", "&>", "&>>", ">&",
];

/// Options of `find` whose command is ended by an argument `;`.
const FIND_COMMANDS: &[&str] = &["-exec", "-execdir", "-ok", "-okdir"];

/// An argv with a shell operator as an element of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorInArgv {
    /// The operator.
    pub operator: &'static str,
    /// Its place in the argv, from 0.
    pub position: usize,
    /// The argv that does what was meant.
    pub working_form: Vec<String>,
}

impl OperatorInArgv {
    /// The working form as people write it: `["sh", "-c", "a && b"]`.
    pub fn working_form_text(&self) -> String {
        let elements: Vec<String> = self
            .working_form
            .iter()
            .map(|element| {
                let text = serde_json::to_string(element).expect("a string has a JSON form");
                // JSON leaves some control characters as they are.
                text.chars().fold(String::new(), |mut text, character| {
                    if character.is_control() {
                        text.push_str(&format!("\\u{:04x}", u32::from(character)));
                    } else {
                        text.push(character);
                    }
                    text
                })
            })
            .collect();
        format!("[{}]", elements.join(", "))
    }

    /// The way out.
    pub fn hint(&self) -> String {
        const LONGEST: usize = 1000;
        let mut form = self.working_form_text();
        if form.chars().nth(LONGEST).is_some() {
            "[\"sh\", \"-c\", …] with all of it as one string".clone_into(&mut form);
        }
        format!(
            "write {form}; or, if the program itself is to get `{}`, pass `literal`",
            self.operator
        )
    }
}

impl fmt::Display for OperatorInArgv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "argument {} is the shell operator `{}`, but an argv is run without a shell; {}",
            self.position,
            self.operator,
            self.hint()
        )
    }
}

impl std::error::Error for OperatorInArgv {}

/// Refuses an argv that has a shell operator as an element of its own.
///
/// The `;` that ends `find … -exec` is an argument like any other and passes.
pub fn check(argv: &[String]) -> Result<(), OperatorInArgv> {
    let Some((position, operator)) = argv
        .iter()
        .enumerate()
        .find_map(|(position, _)| Some((position, operator(argv, position)?)))
    else {
        return Ok(());
    };
    let words: Vec<String> = argv
        .iter()
        .enumerate()
        .map(|(position, word)| operator_or(argv, position, || quoted(word)))
        .collect();
    let working_form = vec!["sh".to_owned(), "-c".to_owned(), words.join(" ")];
    Err(OperatorInArgv { operator, position, working_form })
}

fn operator_or(argv: &[String], position: usize, word: impl FnOnce() -> String) -> String {
    operator(argv, position).map_or_else(word, ToOwned::to_owned)
}

fn operator(argv: &[String], position: usize) -> Option<&'static str> {
    let operator = *OPERATORS.iter().find(|operator| **operator == argv[position])?;
    if operator == ";" && ends_find_command(&argv[..position]) {
        return None;
    }
    Some(operator)
}

fn ends_find_command(before: &[String]) -> bool {
    let find = before.first().is_some_and(|program| program.rsplit('/').next() == Some("find"));
    // A command that an earlier `;` ended does not count.
    let open = before.iter().rev().take_while(|word| *word != ";");
    find && open.into_iter().any(|word| FIND_COMMANDS.contains(&word.as_str()))
}

/// A word as a POSIX shell takes it, quoted if need be.
pub fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte);
    // `a=b` in front of a command would be an assignment.
    let assigns = word.contains('=') && !word.starts_with("--");
    if !word.is_empty() && word.bytes().all(plain) && !assigns {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn operators_are_refused_with_the_working_form() {
        for (given, operator, form) in [
            (
                &["apt-get", "update", "&&", "apt-get", "install", "-y", "ffmpeg"][..],
                "&&",
                r#"["sh", "-c", "apt-get update && apt-get install -y ffmpeg"]"#,
            ),
            (
                &["echo", "a b", ">", "/tmp/it's"],
                ">",
                r#"["sh", "-c", "echo 'a b' > '/tmp/it'\\''s'"]"#,
            ),
            (&["ps", "aux", "|", "grep", "x"], "|", r#"["sh", "-c", "ps aux | grep x"]"#),
            (&["a", ";", "b", "&&", "c"], ";", r#"["sh", "-c", "a ; b && c"]"#),
            (&["make", "2>", "log"], "2>", r#"["sh", "-c", "make 2> log"]"#),
            (&["a", "||", "b"], "||", r#"["sh", "-c", "a || b"]"#),
            (&["a", ">>", "b"], ">>", r#"["sh", "-c", "a >> b"]"#),
            (&["a", "<", "b"], "<", r#"["sh", "-c", "a < b"]"#),
            (&["sleep", "1", "&"], "&", r#"["sh", "-c", "sleep 1 &"]"#),
            (&["printf", "", "|", "cat"], "|", r#"["sh", "-c", "printf '' | cat"]"#),
            (
                &["find", "/", "-exec", "rm", "{}", ";", "&&", "b"],
                "&&",
                r#"["sh", "-c", "find / -exec rm '{}' ';' && b"]"#,
            ),
            (&["find", "/", ";", "b"], ";", r#"["sh", "-c", "find / ; b"]"#),
        ] {
            let error = check(&argv(given)).unwrap_err();
            assert_eq!(error.operator, operator, "{given:?}");
            assert_eq!(error.working_form_text(), form, "{given:?}");
            let text = error.to_string();
            assert!(text.contains(form) && text.contains("literal"), "{text}");
        }
    }

    #[test]
    fn operators_inside_of_arguments_pass() {
        for given in [
            &["sh", "-c", "a && b | c > d"][..],
            &["grep", "-E", "a|b", "x;y"],
            &["echo", "a&&b"],
            &["find", ".", "-exec", "rm", "{}", ";"],
            &["/usr/bin/find", ".", "-name", "x", "-execdir", "a", ";", "-ok", "b", ";"],
            &["a", "--", "-"],
            &[],
        ] {
            assert_eq!(check(&argv(given)), Ok(()), "{given:?}");
        }
    }
}
