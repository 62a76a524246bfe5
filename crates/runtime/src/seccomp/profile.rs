//! The same filter, in the words of the OCI runtime specification.

use serde_json::{Value, json};

use super::{CLONE_NAMESPACES, FAMILIES_DENIED, PERSONALITIES, allowed};

/// The name of this machine's architecture in a profile.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";
/// The name of this machine's architecture in a profile.
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "SCMP_ARCH_AARCH64";

/// The default filter as `linux.seccomp` of a runtime's configuration.
///
/// Runtimes pass over names that they do not know, and answer calls from after the newest that the profile
/// names with `ENOSYS`, as ours does.
pub(crate) fn profile() -> Value {
    let plain: Vec<&str> = allowed::named_calls().map(|(name, _)| name).collect();
    let mut rules = vec![allow(&plain, &json!([]))];
    rules.push(allow(
        &["clone"],
        &json!([{
            "index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ",
        }]),
    ));
    // Conditions of one rule on one argument cannot all be stated, so what is not denied is said by
    // ranges: below, between and above.
    let [low, high] = FAMILIES_DENIED.map(u64::from);
    let (low, high) = (low.min(high), low.max(high));
    rules.push(allow(&["socket"], &json!([{ "index": 0, "value": low, "op": "SCMP_CMP_LT" }])));
    for between in low + 1..high {
        rules.push(allow(
            &["socket"],
            &json!([{ "index": 0, "value": between, "op": "SCMP_CMP_EQ" }]),
        ));
    }
    rules.push(allow(&["socket"], &json!([{ "index": 0, "value": high, "op": "SCMP_CMP_GT" }])));
    for value in PERSONALITIES {
        rules.push(allow(
            &["personality"],
            &json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]),
        ));
    }
    rules.push(json!({
        "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS,
    }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": [ARCHITECTURE],
        "syscalls": rules,
    })
}

fn allow(names: &[&str], arguments: &Value) -> Value {
    let mut rule = json!({ "names": names, "action": "SCMP_ACT_ALLOW" });
    if arguments.as_array().is_some_and(|arguments| !arguments.is_empty()) {
        rule["args"] = arguments.clone();
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::Filter;
    use crate::seccomp::assemble::run::{ALLOW, errno, run};

    /// What the profile says about a call, by the rules of the specification.
    fn decide(profile: &Value, name: &str, argument: u64) -> u32 {
        for rule in profile["syscalls"].as_array().unwrap() {
            let named = rule["names"].as_array().unwrap().iter().any(|other| other == name);
            let holds = |condition: &Value| {
                assert_eq!(condition["index"], 0);
                let value = condition["value"].as_u64().unwrap();
                match condition["op"].as_str().unwrap() {
                    "SCMP_CMP_EQ" => argument == value,
                    "SCMP_CMP_LT" => argument < value,
                    "SCMP_CMP_GT" => argument > value,
                    "SCMP_CMP_MASKED_EQ" => {
                        argument & value == condition["valueTwo"].as_u64().unwrap()
                    }
                    other => panic!("{other}"),
                }
            };
            let conditions = rule["args"].as_array().cloned().unwrap_or_default();
            if named && conditions.iter().all(holds) {
                return match rule["action"].as_str().unwrap() {
                    "SCMP_ACT_ALLOW" => ALLOW,
                    "SCMP_ACT_ERRNO" => errno(rule["errnoRet"].as_i64().unwrap() as i32),
                    other => panic!("{other}"),
                };
            }
        }
        errno(profile["defaultErrnoRet"].as_i64().unwrap() as i32)
    }

    #[test]
    fn agrees_with_our_own_filter() {
        let (profile, filter) = (profile(), Filter::new());
        let mut calls: Vec<(&str, u32)> = allowed::named_calls().collect();
        calls.extend([
            ("clone3", libc::SYS_clone3 as u32),
            ("clone", libc::SYS_clone as u32),
            ("socket", libc::SYS_socket as u32),
            ("personality", libc::SYS_personality as u32),
            ("mount", libc::SYS_mount as u32),
            ("unshare", libc::SYS_unshare as u32),
            ("setns", libc::SYS_setns as u32),
            ("bpf", libc::SYS_bpf as u32),
            ("keyctl", libc::SYS_keyctl as u32),
            ("io_uring_setup", libc::SYS_io_uring_setup as u32),
        ]);
        let arguments = [0, 1, 2, 8, 10, 37, 38, 39, 40, 41, 0x11, 0x2_0000, 0x2_0008, 0x4_0000]
            .into_iter()
            .chain([0x1000_0000, 0x0002_0000, 0x7e02_0000, 0x003d_0f00, 0xffff_ffff]);
        for argument in arguments {
            for (name, number) in &calls {
                let (theirs, ours) =
                    (decide(&profile, name, argument), run(filter.program(), *number, argument));
                assert_eq!(theirs, ours, "{name}({argument:#x})");
            }
        }
    }
}
