//! `TemplateSpec` → image definition.

use kiln_types::{ImageDefinition, ImageName, RunCommand, Step, TemplateSpec};

use crate::base;
use crate::definition::{MAX_STEPS, Packager, check_env, check_packages, check_shell, validate};
use crate::error::{FieldError, FrontendError};

/// The least and the most that may be asked for.
const VCPU: std::ops::RangeInclusive<u32> = 1..=256;
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 16..=4 << 20;

/// A template, translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// What is built.
    pub definition: ImageDefinition,
    /// The name that the image gets.
    pub name: ImageName,
    /// Resource defaults; no part of the definition, so that changing them builds nothing.
    pub defaults: Defaults,
}

/// Resource defaults of a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Virtual CPUs.
    pub vcpu: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
}

/// Translates a template. Its steps are, in this order:
///
/// 1. `env`, so that every step sees the variables as every process of the sandbox does;
/// 2. `apt`, with all packages in one step;
/// 3. one `run` step by the shell for each setup command;
/// 4. `workdir /workspace`.
///
/// A step that would do nothing is left out. `literal` is as for [`validate`].
pub fn translate(spec: &TemplateSpec, literal: bool) -> Result<Translated, FrontendError> {
    let name = base::image_name("name", &spec.name)?;
    let base = base::parse("base_image", &spec.base_image)?;
    let mut steps = Vec::with_capacity(spec.setup_commands.len() + 3);
    if !spec.env.is_empty() {
        check_env("env", &spec.env)?;
        steps.push(Step::Env { vars: spec.env.clone() });
    }
    if !spec.apt_packages.is_empty() {
        check_packages("apt_packages", Packager::Apt, &spec.apt_packages)?;
        steps.push(Step::Apt { packages: spec.apt_packages.clone() });
    }
    // The other steps are three at most.
    if spec.setup_commands.len() > MAX_STEPS - 3 {
        let count = spec.setup_commands.len();
        return Err(FieldError::new("setup_commands", "", format!("has {count} elements"))
            .hint(format!("join commands with `&&`: at most {} are possible", MAX_STEPS - 3))
            .into());
    }
    for (number, command) in spec.setup_commands.iter().enumerate() {
        check_shell(&format!("setup_commands[{number}]"), command)?;
        steps.push(Step::Run { command: RunCommand::Shell(command.clone()) });
    }
    steps.push(Step::Workdir { path: kiln_types::definition::DEFAULT_WORKDIR.to_owned() });
    range("vcpu", spec.vcpu, VCPU, "virtual CPUs")?;
    range("memory_mib", spec.memory_mib, MEMORY_MIB, "MiB")?;

    let definition = ImageDefinition { base, steps };
    validate(&definition, literal)?;
    let defaults = Defaults { vcpu: spec.vcpu, memory_mib: spec.memory_mib };
    Ok(Translated { definition, name, defaults })
}

fn range(
    field: &str,
    value: Option<u32>,
    allowed: std::ops::RangeInclusive<u32>,
    unit: &str,
) -> Result<(), FieldError> {
    match value {
        Some(value) if !allowed.contains(&value) => {
            Err(FieldError::new(field, &value.to_string(), "is out of range").hint(format!(
                "give {} to {} {unit}, or leave it out",
                allowed.start(),
                allowed.end()
            )))
        }
        _ => Ok(()),
    }
}
