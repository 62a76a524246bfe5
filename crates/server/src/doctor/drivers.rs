//! The drivers that there can be besides the native one.

use kiln_runtime::oci::{Flavour, ProbeError, probe};
use kiln_types::api::Check;

use super::{degraded, missing, ok};
use crate::config::Config;
use crate::problem::chain;

/// One finding for each runtime. Only the configured driver is one that cannot be done without.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    let runtimes = match config.oci_runtimes() {
        Ok(runtimes) => runtimes,
        Err(error) => {
            return vec![missing("drivers", chain(&error), "correct the configuration")];
        }
    };
    let look = |runtime: &kiln_runtime::OciConfig| {
        let name = format!("driver {}", runtime.name);
        let problem = match probe(runtime) {
            Ok(found) => {
                let note = if found.hides_groups {
                    "; it is shown no cgroup version 2, which it refuses beside version 1"
                } else {
                    ""
                };
                let detail = format!("{} {}{note}", found.path.display(), found.version);
                return ok(&name, detail);
            }
            Err(error @ ProbeError::Missing { .. }) => {
                (error.to_string(), install(runtime.flavour))
            }
            Err(error) => (chain(&error), install(runtime.flavour)),
        };
        let (detail, hint) = problem;
        if runtime.name == config.driver {
            missing(&name, detail, format!("{hint}, or choose another `driver`"))
        } else {
            degraded(&name, format!("{detail}; no sandbox can ask for it"), hint)
        }
    };
    runtimes.iter().map(look).collect()
}

fn install(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Runc => "install the package runc",
        Flavour::Crun => "install the package crun",
        Flavour::Runsc => {
            "install runsc of 2023 or later (in Debian 12: `apt-get install -t bookworm-backports runsc`)"
        }
    }
}
