//! What was planned for this process, and carrying it out.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

const ENOSPC: i32 = 28;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Error,
    NoSpace,
}

/// One plan, and how far it is from being carried out.
#[derive(Debug)]
struct Plan {
    text: String,
    /// Name, action, and how many times the point is still passed; `None` when there is nothing to do.
    wanted: Option<(String, Action, u32)>,
}

struct State {
    file: Option<PathBuf>,
    plan: Mutex<Plan>,
}

static STATE: OnceLock<State> = OnceLock::new();

/// The error that the operation at this point is to fail with; does not return if it is to die.
pub(super) fn hit(name: &'static str) -> Option<io::Error> {
    debug_assert!(crate::POINTS.iter().any(|point| point.name == name), "{name} is in the table");
    let state = STATE.get_or_init(|| State {
        file: std::env::var_os("KILN_FAIL_POINT_FILE").map(PathBuf::from),
        plan: Mutex::new(Plan::parse(std::env::var("KILN_FAIL_POINT").unwrap_or_default())),
    });
    let mut plan = state.plan.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = &state.file
        && let Ok(text) = fs::read_to_string(file)
        && text != plan.text
    {
        *plan = Plan::parse(text);
    }
    let action = plan.due(name)?;
    if let Some(file) = &state.file {
        let mut fired = file.clone().into_os_string();
        fired.push(".fired");
        // The harness only counts these.
        let _ = fs::write(fired, name);
    }
    match action {
        Action::Kill => {
            let this = rustix::process::getpid();
            let _ = rustix::process::kill_process(this, rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
        Action::Error => Some(io::Error::other(format!("planned failure at {name}"))),
        Action::NoSpace => Some(io::Error::from_raw_os_error(ENOSPC)),
    }
}

impl Plan {
    /// What is not well-formed plans nothing.
    fn parse(text: String) -> Self {
        let wanted = (|| {
            let (place, action) = text.trim().split_once('=')?;
            let (name, nth) = place.split_once(':').unwrap_or((place, "1"));
            let action = match action {
                "kill" => Action::Kill,
                "error" => Action::Error,
                "enospc" => Action::NoSpace,
                _ => return None,
            };
            Some((name.to_owned(), action, nth.parse::<u32>().ok()?.max(1)))
        })();
        Self { text, wanted }
    }

    fn due(&mut self, name: &str) -> Option<Action> {
        let (wanted, action, left) = self.wanted.as_mut()?;
        if wanted != name {
            return None;
        }
        *left -= 1;
        let due = (*left == 0).then_some(*action)?;
        self.wanted = None;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_carried_out_at_the_nth_time_and_once() {
        for (text, name, expected) in [
            ("a.b=kill", "a.b", vec![Some(Action::Kill), None]),
            ("a.b:3=error\n", "a.b", vec![None, None, Some(Action::Error), None]),
            ("a.b:1=enospc", "other", vec![None, None]),
            ("a.b=explode", "a.b", vec![None]),
            ("", "", vec![None]),
        ] {
            let mut plan = Plan::parse(text.to_owned());
            for (time, expected) in expected.into_iter().enumerate() {
                assert_eq!(plan.due(name), expected, "{text} at {name}, time {time}");
            }
        }
    }
}
