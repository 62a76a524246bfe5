//! The rules by which an image definition is valid.

use kiln_types::{ImageDefinition, RunCommand, Step};

use crate::error::{FieldError, FrontendError};
use crate::{argv, base};

mod file;
mod packages;
mod words;

pub(crate) use packages::{Packager, check_packages};
pub(crate) use words::{check_env, check_shell};

/// How many steps a definition may have. Each may be a layer, and a root has at most 500 of them.
pub const MAX_STEPS: usize = 200;

/// Checks every field of a definition. With `literal`, shell operators may be argv elements.
///
/// # Errors
/// The first field that is wrong, with its path, its value and the way out.
pub fn validate(definition: &ImageDefinition, literal: bool) -> Result<(), FrontendError> {
    base::check("base", &definition.base)?;
    if definition.steps.len() > MAX_STEPS {
        let count = definition.steps.len().to_string();
        return Err(FieldError::new("steps", "", format!("has {count} elements"))
            .hint(format!("join steps: at most {MAX_STEPS} are possible"))
            .into());
    }
    for (number, step) in definition.steps.iter().enumerate() {
        check_step(step, literal).map_err(|error| error.within(&format!("steps[{number}]")))?;
    }
    Ok(())
}

fn check_step(step: &Step, literal: bool) -> Result<(), FrontendError> {
    match step {
        Step::Apt { packages } => check_packages("packages", Packager::Apt, packages)?,
        Step::Pip { packages } => check_packages("packages", Packager::Pip, packages)?,
        Step::Npm { packages } => check_packages("packages", Packager::Npm, packages)?,
        Step::Run { command: RunCommand::Shell(command) } => {
            words::check_shell("command.shell", command)?;
        }
        Step::Run { command: RunCommand::Argv(argv) } => check_argv("command.argv", argv, literal)?,
        Step::File(file) => file::check(file)?,
        Step::Env { vars } => {
            if vars.is_empty() {
                return Err(FieldError::new("vars", "", "is empty")
                    .hint("name at least one variable, or leave the step out")
                    .into());
            }
            words::check_env("vars", vars)?;
        }
        Step::Workdir { path } => file::check_path("path", path)?,
        Step::User { user } => words::check_user("user", user)?,
        Step::Cmd { argv } => check_argv("argv", argv, literal)?,
    }
    Ok(())
}

fn check_argv(field: &str, argv: &[String], literal: bool) -> Result<(), FrontendError> {
    words::check_argv(field, argv)?;
    if literal {
        return Ok(());
    }
    argv::check(argv).map_err(|error| FrontendError::Operator { field: field.to_owned(), error })
}
