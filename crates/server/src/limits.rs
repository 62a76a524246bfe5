//! Limits of sandboxes: which are possible, and which hold when several say something.

use kiln_metadata::TemplateDefaults;
use kiln_roots::UpperLimits;
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
/// The least disk, in MiB.
pub(crate) const MIN_DISK_MIB: u32 = (UpperLimits::LEAST >> 20) as u32;
/// The largest disk, in MiB.
pub(crate) const MAX_DISK_MIB: u32 = (UpperLimits::MOST >> 20) as u32;

/// The limits in force: the request's, else the image's, else the configured ones. Every field is set;
/// that of the disk only where disks are `bounded`, since elsewhere none is in force.
pub(crate) fn in_force(
    asked: &ResourceLimits,
    image: &TemplateDefaults,
    defaults: &Defaults,
    bounded: bool,
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
    let disk_mib =
        limit("disk_mib", asked.disk_mib, defaults.disk_mib, MIN_DISK_MIB, MAX_DISK_MIB)?;
    if !bounded && let Some(asked) = asked.disk_mib {
        let detail = format!("`limits.disk_mib` is {asked}, but this host does not bound disks");
        return Err(ApiError::new(ErrorCode::InvalidRequest, detail)
            .hint("leave it out, or see what `kiln doctor` says about sandbox disks"));
    }
    Ok(ResourceLimits {
        disk_mib: disk_mib.filter(|_| bounded),
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

/// The size of a sandbox's disk as the store of disks takes it.
pub(crate) fn for_disk(limits: &ResourceLimits, defaults: &Defaults) -> UpperLimits {
    UpperLimits { bytes: u64::from(limits.disk_mib.unwrap_or(defaults.disk_mib)) << 20 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_holds() {
        let defaults = Defaults::default();
        let image = TemplateDefaults { vcpu: Some(4), memory_mib: None };
        let asked = ResourceLimits { memory_mib: Some(64), ..Default::default() };
        let limits = in_force(&asked, &image, &defaults, true).unwrap();
        assert_eq!((limits.vcpu, limits.memory_mib, limits.pids), (Some(4), Some(64), Some(4096)));
        assert_eq!(for_runtime(&limits, &defaults).memory, 64 << 20);
        assert_eq!(limits.disk_mib, Some(10240));
        let small = ResourceLimits { disk_mib: Some(100), ..limits };
        let small = in_force(&small, &image, &defaults, true).unwrap();
        assert_eq!(for_disk(&small, &defaults).bytes, 100 << 20);
        // A limit that is not in force is not said to be.
        assert_eq!(in_force(&asked, &image, &defaults, false).unwrap().disk_mib, None);
        let refused = in_force(&small, &image, &defaults, false).unwrap_err().problem;
        assert!(refused.detail.contains("`limits.disk_mib` is 100"), "{}", refused.detail);
        assert!(refused.hint.is_some());
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
            (
                ResourceLimits { disk_mib: Some(31), ..Default::default() },
                "`limits.disk_mib` is 31",
            ),
            (
                ResourceLimits { disk_mib: Some(MAX_DISK_MIB + 1), ..Default::default() },
                "between 32 and 1048576",
            ),
            (ResourceLimits { vcpu: Some(u32::MAX), ..Default::default() }, "between 1 and 1024"),
        ] {
            let error = in_force(&asked, &TemplateDefaults::default(), &Defaults::default(), true);
            let detail = error.unwrap_err().problem.detail;
            assert!(detail.contains(text), "{detail}");
        }
    }
}
