//! `config.json` of a bundle, by the OCI runtime specification 1.0.

use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use super::flavour::Flavour;
use crate::launcher::{
    AGENT, AGENT_SOURCE, KEPT, LINK, Launch, OPEN_FILES, PROC_HIDDEN, PROC_READ_ONLY, STACK,
    TERMINALS,
};
use crate::runtime::{IDS_PER_SANDBOX, Limits};
use crate::seccomp;

/// What the configuration depends on.
#[derive(Debug)]
pub(super) struct Bundle<'a> {
    pub(super) flavour: Flavour,
    pub(super) launch: &'a Launch,
    pub(super) limits: &'a Limits,
    /// Where the root is, for the runtime.
    pub(super) root: &'a Path,
    /// Namespaces to join, as paths.
    pub(super) userns: &'a str,
    pub(super) netns: &'a str,
    /// The control group, below the root of each hierarchy.
    pub(super) group: &'a str,
    pub(super) id_base: u32,
    /// Whether the image has a directory `/tmp`.
    pub(super) has_tmp: bool,
}

/// The agent's socket in a sandbox that it shares a directory with the host for.
pub(super) const SOCKET: &str = "agent.sock";

impl Bundle<'_> {
    /// The document.
    pub(super) fn config(&self) -> Value {
        let launch = self.launch;
        let capabilities = capabilities();
        let arguments = if self.flavour.hands_sockets_over() {
            vec![AGENT.to_owned(), "--listen-fd".into(), "3".into()]
        } else {
            vec![AGENT.to_owned(), "--listen".into(), format!("{LINK}/{SOCKET}")]
        };
        let mapping = json!([{
            "containerID": 0, "hostID": self.id_base, "size": IDS_PER_SANDBOX,
        }]);
        json!({
            "ociVersion": "1.0.2",
            "hostname": launch.hostname,
            "root": { "path": self.root, "readonly": false },
            "process": {
                "terminal": false,
                "cwd": "/",
                "user": { "uid": 0, "gid": 0, "umask": 0o022 },
                "args": arguments,
                "env": launch.env,
                "capabilities": {
                    "bounding": capabilities,
                    "effective": capabilities,
                    "permitted": capabilities,
                    "inheritable": [],
                    "ambient": [],
                },
                "noNewPrivileges": launch.no_new_privs,
                "rlimits": self.rlimits(),
                "oomScoreAdj": oom_score_adjustment(),
            },
            "mounts": self.mounts(),
            "linux": {
                "namespaces": self.namespaces(),
                "uidMappings": mapping,
                "gidMappings": mapping,
                "cgroupsPath": self.group,
                // Limits are those of the group, which was made for the sandbox before. gVisor takes from
                // here how much memory it shows.
                "resources": {
                    "memory": { "limit": self.limits.memory },
                    "devices": devices(),
                },
                "seccomp": seccomp::profile(),
                "maskedPaths": below_proc(&PROC_HIDDEN),
                "readonlyPaths": below_proc(&PROC_READ_ONLY),
                "rootfsPropagation": "private",
            },
        })
    }

    /// Never above the hard limits that this process has: to raise those takes a privilege of the host.
    fn rlimits(&self) -> Value {
        let clamp = |value: u64, hard: Option<u64>| hard.map_or(value, |hard| value.min(hard));
        let limit = |kind: &str, resource: Resource, soft: u64| {
            let hard = getrlimit(resource).maximum;
            json!({ "type": kind, "soft": clamp(soft, hard), "hard": hard.unwrap_or(u64::MAX) })
        };
        let mut limits = vec![
            json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }),
            limit("RLIMIT_NOFILE", Resource::Nofile, OPEN_FILES),
            limit("RLIMIT_STACK", Resource::Stack, STACK),
        ];
        if self.flavour.counts_processes() {
            let pids = self.limits.pids;
            limits.push(json!({ "type": "RLIMIT_NPROC", "soft": pids, "hard": pids }));
        }
        limits.into()
    }

    fn namespaces(&self) -> Value {
        let mut user = json!({ "type": "user" });
        if self.flavour.joins_user_namespaces() {
            user["path"] = self.userns.into();
        }
        json!([
            user,
            { "type": "network", "path": self.netns },
            { "type": "pid" },
            { "type": "mount" },
            { "type": "uts" },
            { "type": "ipc" },
            { "type": "cgroup" },
        ])
    }

    /// What the runtime has to mount because only a process in the sandbox's namespaces can. All else is
    /// part of the root already.
    fn mounts(&self) -> Value {
        let shm = format!("size={}", self.launch.shm_bytes);
        let proc = json!({
            "destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"],
        });
        let shm = json!({
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", shm],
        });
        let mut pts = json!({
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        });
        if let Some(options) = pts["options"].as_array_mut()
            && !self.flavour.own_kernel()
        {
            options.push(format!("max={TERMINALS}").into());
        }
        if self.flavour.own_kernel() {
            let mut mounts = json!([
                proc,
                {
                    "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "strictatime", "mode=755", "size=1m"],
                },
                pts,
                shm,
                {
                    "destination": "/sys", "type": "sysfs", "source": "sysfs",
                    "options": ["nosuid", "noexec", "nodev", "ro"],
                },
                {
                    "destination": LINK, "type": "bind",
                    "source": self.root.join(LINK.trim_start_matches('/')),
                    "options": ["bind", "nosuid", "noexec", "nodev", "rw"],
                },
                {
                    // A mount of its own: one that only the host knows does not keep gVisor from removing
                    // the file below it.
                    "destination": AGENT, "type": "bind",
                    "source": self.root.join(AGENT_SOURCE.trim_start_matches('/')),
                    "options": ["bind", "nosuid", "nodev", "ro"],
                },
            ]);
            if let Some(mounts) = mounts.as_array_mut().filter(|_| self.has_tmp) {
                // On itself: gVisor would lay a file system in memory over an empty `/tmp`, and what is
                // written there would not be on the sandbox's disk.
                mounts.push(json!({
                    "destination": "/tmp", "type": "bind", "source": self.root.join("tmp"),
                    "options": ["bind", "nodev", "rw"],
                }));
            }
            return mounts;
        }
        json!([
            proc,
            {
                // On itself, so that the runtime makes no devices of its own there.
                "destination": "/dev", "type": "bind", "source": self.root.join("dev"),
                "options": ["rbind", "nosuid", "rw"],
            },
            pts,
            shm,
            {
                "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"],
            },
        ])
    }
}

fn capabilities() -> Vec<String> {
    KEPT.iter_names().map(|(name, _): (&str, CapabilitySet)| format!("CAP_{name}")).collect()
}

fn below_proc(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("/proc/{name}")).collect()
}

/// A daemon that the kernel spares when memory runs out does not pass that on.
fn oom_score_adjustment() -> i32 {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj");
    own.ok().and_then(|text| text.trim().parse::<i32>().ok()).unwrap_or(0).max(0)
}

/// What a sandbox may open where there is a version 1 controller for devices, or a program in its place:
/// what the group allows already.
fn devices() -> Value {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    let character = [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9))];
    let terminals = [(5, Some(0)), (5, Some(2)), (136, None)];
    for (major, minor) in character.into_iter().chain(terminals) {
        let mut rule = json!({ "allow": true, "type": "c", "major": major, "access": "rw" });
        if let Some(minor) = minor {
            rule["minor"] = minor.into();
        }
        rules.push(rule);
    }
    rules.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flavour: Flavour) -> Value {
        let launch = Launch {
            hostname: "box".into(),
            hosts: String::new(),
            resolv_conf: String::new(),
            env: vec!["A=1".into()],
            shm_bytes: 4096,
            ca_bundle: None,
            no_new_privs: true,
        };
        let limits = Limits { vcpu: 1, memory: 64 << 20, pids: 64 };
        Bundle {
            flavour,
            launch: &launch,
            limits: &limits,
            root: Path::new("/run/kiln/root"),
            userns: "/proc/1/fd/7",
            netns: "/proc/1/fd/8",
            group: "/kiln-0/r1-1",
            id_base: 131_072,
            has_tmp: true,
        }
        .config()
    }

    #[test]
    fn is_as_hard_as_a_native_sandbox() {
        for flavour in Flavour::ALL {
            let config = config(flavour);
            let process = &config["process"];
            assert_eq!(process["noNewPrivileges"], true);
            for set in ["bounding", "effective", "permitted"] {
                let names = process["capabilities"][set].as_array().unwrap();
                assert_eq!(names.len(), 13, "{set}: {names:?}");
                assert!(names.iter().all(|name| name != "CAP_SYS_ADMIN" && name != "CAP_MKNOD"));
                assert!(names.iter().any(|name| name == "CAP_CHOWN"));
            }
            assert_eq!(config["linux"]["uidMappings"][0]["hostID"], 131_072);
            let kinds: Vec<&str> = config["linux"]["namespaces"]
                .as_array()
                .unwrap()
                .iter()
                .map(|namespace| namespace["type"].as_str().unwrap())
                .collect();
            for kind in ["user", "network", "pid", "mount", "uts", "ipc"] {
                assert!(kinds.contains(&kind), "{kind}");
            }
            let hidden = config["linux"]["maskedPaths"].as_array().unwrap();
            assert!(hidden.iter().any(|path| path == "/proc/kcore"));
            assert_eq!(config["linux"]["resources"]["devices"][0]["allow"], false);
        }
    }

    #[test]
    fn the_agent_listens_where_the_runtime_can_pass_it_on() {
        for (flavour, expected) in [
            (Flavour::Runc, ["/sbin/agent", "--listen-fd", "3"]),
            (Flavour::Crun, ["/sbin/agent", "--listen-fd", "3"]),
            (Flavour::Runsc, ["/sbin/agent", "--listen", "/dev/kiln/agent.sock"]),
        ] {
            assert_eq!(config(flavour)["process"]["args"], json!(expected));
        }
    }
}
