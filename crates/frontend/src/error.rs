//! What is wrong with a template or a definition.

use std::fmt;

use kiln_types::Problem;
use kiln_types::error::ErrorCode;

use crate::OperatorInArgv;

/// Why a template or a definition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontendError {
    /// A field has a value that it must not have.
    #[error(transparent)]
    Field(FieldError),
    /// An argv has a shell operator as an element of its own.
    #[error("{field}: {error}")]
    Operator {
        /// The field that holds the argv.
        field: String,
        /// Which operator, and the form that works.
        error: OperatorInArgv,
    },
}

/// A field with a bad value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's path in the document: `steps[2].packages[0]`.
    pub field: String,
    /// The value, shortened and escaped; empty when it says nothing.
    pub value: String,
    /// What is wrong, as the rest of a sentence that begins with the field and its value.
    pub problem: String,
    /// The way out.
    pub hint: Option<String>,
}

impl FrontendError {
    /// The code that clients see.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Field(_) => ErrorCode::InvalidDefinition,
            Self::Operator { .. } => ErrorCode::ShellOperatorInArgv,
        }
    }

    /// The way out, when there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Field(error) => error.hint.clone(),
            Self::Operator { error, .. } => Some(error.hint()),
        }
    }

    /// The whole as clients see it.
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.code(), self.to_string());
        match self.hint() {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }

    /// The same error, found in a part of a larger document: `prefix` goes before the field.
    #[must_use]
    pub(crate) fn within(mut self, prefix: &str) -> Self {
        let (Self::Field(FieldError { field, .. }) | Self::Operator { field, .. }) = &mut self;
        *field = match (prefix, field.as_str()) {
            (prefix, "") => prefix.to_owned(),
            (prefix, rest) if rest.starts_with('[') => format!("{prefix}{rest}"),
            (prefix, rest) => format!("{prefix}.{rest}"),
        };
        self
    }
}

impl From<FieldError> for FrontendError {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, value: &str, problem: impl Into<String>) -> Self {
        Self { field: field.into(), value: shown(value), problem: problem.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        if !self.value.is_empty() {
            write!(f, " `{}`", self.value)?;
        }
        write!(f, " {}", self.problem)
    }
}

impl std::error::Error for FieldError {}

/// A value as a message shows it: one line, no control characters, not endless.
pub(crate) fn shown(value: &str) -> String {
    const LONGEST: usize = 120;
    let mut text: String = value
        .chars()
        .take(LONGEST)
        .flat_map(|c| {
            if c.is_control() { Escaped::Code(c.escape_default()) } else { Escaped::Plain(Some(c)) }
        })
        .collect();
    if value.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}

enum Escaped {
    Plain(Option<char>),
    Code(std::char::EscapeDefault),
}

impl Iterator for Escaped {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        match self {
            Self::Plain(c) => c.take(),
            Self::Code(code) => code.next(),
        }
    }
}
