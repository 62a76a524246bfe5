//! `doctor`, `openapi`.

use std::io::Write as _;

use anyhow::Result;
use kiln_server::Config;
use kiln_types::api::CheckStatus;

use crate::output;

/// Looks at this host itself: it must work where no daemon runs yet.
pub(super) fn doctor(json: bool) -> Result<u8> {
    let report = kiln_server::doctor(&Config::load(None)?);
    if json {
        output::json(&report)?;
    } else {
        for check in &report.checks {
            let mark = match check.status {
                CheckStatus::Ok => "ok      ",
                CheckStatus::Degraded => "degraded",
                CheckStatus::Missing => "missing ",
            };
            output::line(&format!("{mark}  {}: {}", check.name, check.detail))?;
            if let Some(hint) = &check.hint {
                output::line(&format!("          hint: {hint}"))?;
            }
        }
        output::line(if report.usable {
            "This host can run sandboxes."
        } else {
            "This host cannot run sandboxes yet; see what is missing above."
        })?;
    }
    Ok(u8::from(!report.usable))
}

pub(super) fn openapi() -> Result<()> {
    let document = serde_json::to_string_pretty(&kiln_server::openapi())?;
    writeln!(std::io::stdout().lock(), "{document}")?;
    Ok(())
}
