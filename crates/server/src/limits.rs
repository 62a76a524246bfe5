//! Limits of sandboxes: which are possible, and which hold when several say something.

use kiln_metadata::TemplateDefaults;
use kiln_runtime::Limits;
use kiln_types::ErrorCode;
use kiln_types::api::ResourceLimits;

use crate::config::Defaults;
use crate::problem::ApiError;

/// Below this not even the agent and a shell fit.
pub(crate) const MIN_MEMORY_MIB: u32 = 16;
/// Below this no command can be run beside the agent.
pub(crate) const MIN_PIDS: u32 = 8;
/// The kernel's own limit on CPUs is far below this.
const MAX_VCPU: u32 = 1024;
/// Far above any host; keeps the arithmetic in bytes from overflowing.
const MAX_MEMORY_MIB: u32 = 64 << 20;
/// The kernel's own limit on process numbers.
const MAX_PIDS: u32 = 4 << 20;

/// The limits in force: the request's, else the image's, else the configured ones. Every field is set.
pub(crate) fn in_force(
    asked: &ResourceLimits,
    image: &TemplateDefaults,
    defaults: &Defaults,
) -> Result<ResourceLimits, ApiError> {
    let limit = |field, asked: Option<u32>, otherwise: u32, least: u32, most: u32| {
        let Some(value) = asked else { return Ok(Some(otherwise.clamp(least, most))) };
        if (least..=most).contains(&value) {
            return Ok(Some(value));
        }
        Err(ApiError::new(
            ErrorCode::InvalidRequest,
            format!("`limits.{field}` is {value}; it must be between {least} and {most}"),
        ))
    };
    Ok(ResourceLimits {
        vcpu: limit("vcpu", asked.vcpu, image.vcpu.unwrap_or(defaults.vcpu), 1, MAX_VCPU)?,
        memory_mib: limit(
            "memory_mib",
            asked.memory_mib,
            image.memory_mib.unwrap_or(defaults.memory_mib),
            MIN_MEMORY_MIB,
            MAX_MEMORY_MIB,
        )?,
        pids: limit("pids", asked.pids, defaults.pids, MIN_PIDS, MAX_PIDS)?,
    })
}

/// The limits as the runtime takes them.
pub(crate) fn for_runtime(limits: &ResourceLimits, defaults: &Defaults) -> Limits {
    Limits {
        vcpu: limits.vcpu.unwrap_or(defaults.vcpu),
        memory: u64::from(limits.memory_mib.unwrap_or(defaults.memory_mib)) << 20,
        pids: limits.pids.unwrap_or(defaults.pids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_holds() {
        let defaults = Defaults::default();
        let image = TemplateDefaults { vcpu: Some(4), memory_mib: None };
        let asked = ResourceLimits { memory_mib: Some(64), ..Default::default() };
        let limits = in_force(&asked, &image, &defaults).unwrap();
        assert_eq!((limits.vcpu, limits.memory_mib, limits.pids), (Some(4), Some(64), Some(4096)));
        assert_eq!(for_runtime(&limits, &defaults).memory, 64 << 20);
    }

    #[test]
    fn impossible_limits_are_named() {
        for (asked, text) in [
            (ResourceLimits { vcpu: Some(0), ..Default::default() }, "`limits.vcpu` is 0"),
            (
                ResourceLimits { memory_mib: Some(1), ..Default::default() },
                "`limits.memory_mib` is 1",
            ),
            (ResourceLimits { pids: Some(1), ..Default::default() }, "`limits.pids` is 1"),
            (ResourceLimits { vcpu: Some(u32::MAX), ..Default::default() }, "between 1 and 1024"),
        ] {
            let error = in_force(&asked, &TemplateDefaults::default(), &Defaults::default());
            let detail = error.unwrap_err().problem.detail;
            assert!(detail.contains(text), "{detail}");
        }
    }
}
